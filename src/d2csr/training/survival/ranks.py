"""Which of several processes this is, before the trainer has connected them."""

from __future__ import annotations

from pytorch_lightning.utilities.rank_zero import rank_zero_only


def is_first_process() -> bool:
    """Say whether this is the process that writes files and messages."""
    return getattr(rank_zero_only, "rank", 0) == 0
