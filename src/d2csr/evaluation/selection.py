"""Notes on checkpoints that were selected on the images they are evaluated on."""

from __future__ import annotations

from collections.abc import Iterable

from d2csr.checkpoints import Checkpoint
from d2csr.data.splits import Splits


def selection_notes(checkpoints: Iterable[Checkpoint], splits: Splits) -> list[str]:
    """Return a note for each checkpoint that is the best one of its run on the test images of ``splits``."""
    return [
        f"{checkpoint.path}: selected by its PSNR on these images, so its scores are too high. The paper's protocol "
        "reports last.ckpt."
        for checkpoint in checkpoints
        if checkpoint.data.get("selected_on") == splits.source("test")
    ]
