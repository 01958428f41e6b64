"""The ladder of models, from hand-written NumPy gradients to a module with control flow."""

from trainer.models.numpy_net import NumpyNet
from trainer.models.two_layer_net import TwoLayerNet

__all__ = ["NumpyNet", "TwoLayerNet"]
