"""Lightning callbacks of a training, one in each file."""

from d2csr.callbacks.batch_report import BatchReport
from d2csr.callbacks.best_checkpoint import BestCheckpoint
from d2csr.callbacks.ema import EMA
from d2csr.callbacks.gradient_clipping import GradientClipping
from d2csr.callbacks.last_checkpoint import LastCheckpoint
from d2csr.callbacks.nonfinite_guard import NonFiniteGuard
from d2csr.callbacks.progress_bar import EvaluationProgressBar, TrainingProgressBar
from d2csr.callbacks.rank_failure import RankFailure
from d2csr.callbacks.training_curves import TrainingCurves
from d2csr.callbacks.training_log import TrainingLog
from d2csr.callbacks.validation_panels import ValidationPanels

__all__ = [
    "EMA",
    "BatchReport",
    "BestCheckpoint",
    "EvaluationProgressBar",
    "GradientClipping",
    "LastCheckpoint",
    "NonFiniteGuard",
    "RankFailure",
    "TrainingCurves",
    "TrainingLog",
    "TrainingProgressBar",
    "ValidationPanels",
]
