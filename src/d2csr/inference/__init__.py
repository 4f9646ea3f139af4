"""Running a model on images of any size: exactly, and within a memory budget."""

from d2csr.inference.pieces import Outputs, Piece
from d2csr.inference.run import PRECISIONS, Inference
from d2csr.inference.upscale import upscale

__all__ = ["PRECISIONS", "Inference", "Outputs", "Piece", "upscale"]
