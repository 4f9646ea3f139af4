"""Evaluating a model on pairs: figures of each image, a comparison with bicubic, pictures."""

from d2csr.evaluation.report import Report
from d2csr.evaluation.run import evaluate

__all__ = ["Report", "evaluate"]
