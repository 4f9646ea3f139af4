"""Training D2C-SR with Lightning: one task for each of the three ways to optimize its two networks."""

from d2csr.checks import OPTIMIZATIONS
from d2csr.training.build import build_task
from d2csr.training.modes import AlternatingTask, JointTask, SequentialTask
from d2csr.training.task import D2CSRTask
from d2csr.training.trainer import build_trainer

__all__ = [
    "OPTIMIZATIONS",
    "AlternatingTask",
    "D2CSRTask",
    "JointTask",
    "SequentialTask",
    "build_task",
    "build_trainer",
]
