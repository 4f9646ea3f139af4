"""Evaluation on pairs: scores of each image, a comparison with bicubic, panels."""

from d2csr.evaluation.all_images import evaluate
from d2csr.evaluation.evaluation_task import Scoring
from d2csr.evaluation.report import Report

__all__ = ["Report", "Scoring", "evaluate"]
