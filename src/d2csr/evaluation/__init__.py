"""Evaluating a model on pairs: figures of each image, a comparison with bicubic, pictures."""

from d2csr.evaluation.evaluation_task import evaluate
from d2csr.evaluation.report import Report

__all__ = ["Report", "evaluate"]
