"""Checkpoint files that are whole: written beside, brought to the disk, then renamed; the former one is kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from d2csr.errors import CheckpointError

LAST, BEST = "last.ckpt", "best.ckpt"
# The last checkpoint before the last: what there is to go on from, should the disk damage that one.
PREVIOUS = "previous.ckpt"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of another once it is whole, and on the disk.

    Whenever the process or the machine stops, ``path`` holds the former content or the new one.

    Args:
        path: the file to write; its folder is made.

    Raises:
        CheckpointError: it cannot be written; the former one is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _to_disk(partial)
        partial.replace(path)
        _to_disk(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        left = " What was there before is untouched." if path.exists() else ""
        raise CheckpointError(f"{path}: cannot be written ({error}).{left}") from None
    finally:  # also where the user interrupts
        with contextlib.suppress(OSError):
            partial.unlink()


def keep_previous(last: Path) -> None:
    """Give a checkpoint that is about to be replaced a second name, :data:`PREVIOUS`, beside it."""
    if not last.is_file():
        return
    previous = last.with_name(PREVIOUS)
    link = last.with_name(f".{PREVIOUS}.{os.getpid()}.partial")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(last)
        link.replace(previous)
    except OSError:  # a file system without hard links
        last.replace(previous)
    finally:  # rename leaves both names where they are one file already
        link.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process has left of a checkpoint that it was writing."""
    for partial in folder.glob(".*.ckpt.*.partial"):
        partial.unlink(missing_ok=True)


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to write a checkpoint, with :func:`replacing`; of ``last.ckpt`` the former one stays too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: it cannot be written; the former one is untouched.
        """
        path = Path(path)
        with replacing(path) as partial:
            torch.save(checkpoint, partial)
            if path.name == LAST:
                _to_disk(partial)
                keep_previous(path)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; not all file systems can do it for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
