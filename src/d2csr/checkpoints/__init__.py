"""Weights on disk: own checkpoints, exported weights, and official pickles."""

from d2csr.checkpoints.loading import Checkpoint, load_model, read_checkpoint, require_finite
from d2csr.checkpoints.own import save_model

__all__ = ["Checkpoint", "load_model", "read_checkpoint", "require_finite", "save_model"]
