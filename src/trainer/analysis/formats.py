"""The formats that a model can be exported in, listed without torch."""

from __future__ import annotations

FORMATS = {"safetensors": "model.safetensors", "pt2": "model.pt2", "onnx": "model.onnx"}
