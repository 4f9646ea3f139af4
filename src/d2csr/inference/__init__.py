"""Inference on images of any size within a memory budget."""

from d2csr.inference.runner import Inference, upscale
from d2csr.inference.strips import Outputs

__all__ = ["Inference", "Outputs", "upscale"]
