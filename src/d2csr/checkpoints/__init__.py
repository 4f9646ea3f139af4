"""Weights on disk and on the hub: own checkpoints, exported weights, and official pickles."""

from d2csr.checkpoints.loading import Checkpoint, read_checkpoint, require_finite
from d2csr.checkpoints.own import save_model
from d2csr.checkpoints.pretrained import D2CSR, load_model

__all__ = ["D2CSR", "Checkpoint", "load_model", "read_checkpoint", "require_finite", "save_model"]
