"""Models: the ladder, from hand-written NumPy gradients to a module with control flow, and models for your own data."""

from trainer.models.autograd_net import AutogradNet
from trainer.models.dynamic_net import DynamicNet
from trainer.models.function_net import FunctionNet
from trainer.models.linear_net import LinearNet
from trainer.models.linear_stack import LinearStack
from trainer.models.mlp import MLP
from trainer.models.numpy_net import NumpyNet
from trainer.models.product import Product
from trainer.models.sequential_net import SequentialNet
from trainer.models.tensor_net import TensorNet
from trainer.models.two_layer_net import TwoLayerNet

__all__ = [
    "MLP",
    "AutogradNet",
    "DynamicNet",
    "FunctionNet",
    "LinearNet",
    "LinearStack",
    "NumpyNet",
    "Product",
    "SequentialNet",
    "TensorNet",
    "TwoLayerNet",
]
