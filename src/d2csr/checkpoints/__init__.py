"""Weights on disk: own checkpoints, exported weights, and the official implementation's pickles."""

from d2csr.checkpoints.loading import Checkpoint, load_model, read_checkpoint
from d2csr.checkpoints.own import save_model

__all__ = ["Checkpoint", "load_model", "read_checkpoint", "save_model"]
