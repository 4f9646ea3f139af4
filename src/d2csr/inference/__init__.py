"""Inference on images of any size within a memory budget."""

from d2csr.inference.outputs import Outputs, TileOutput
from d2csr.inference.precision import PRECISIONS
from d2csr.inference.runner import Inference, upscale

__all__ = ["PRECISIONS", "Inference", "Outputs", "TileOutput", "upscale"]
