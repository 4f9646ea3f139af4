"""Lightning's Trainer for a mode of optimization: its settings as Lightning has them, and right in every mode."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO

from d2csr.callbacks.gradient_clipping import GradientClipping
from d2csr.callbacks.nonfinite_guard import NonFiniteGuard
from d2csr.callbacks.rank_failure import RankFailure
from d2csr.errors import ConfigError
from d2csr.files import sync_to_disk, write_checkpoint_file
from d2csr.training.build import optimization_named


def build_trainer(
    *,
    optimization: str,
    on_nonfinite: str = "raise",
    gradient_clip_val: float | None = None,
    gradient_clip_algorithm: str | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> pl.Trainer:
    """Build the Trainer.

    Args:
        optimization: the mode that it will train in.
        on_nonfinite: what to do about a loss that is not finite, of :class:`d2csr.callbacks.NonFiniteGuard`.
        gradient_clip_val: where to clip gradients; see :class:`d2csr.callbacks.gradient_clipping.GradientClipping`.
        gradient_clip_algorithm: ``norm``, which is the default, or ``value``.
        callbacks: more of them.
        settings: Lightning's. Its strategy ``ddp`` is taken with what the mode needs.

    Raises:
        ConfigError: a setting has an impossible value, or one that the mode cannot work with.
    """
    kind = optimization_named(optimization)
    if kind.steps_itself and settings.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches: optimization={optimization} steps twice in each batch and cannot "
            "accumulate; raise data.batch_size, or take optimization=joint or sequential."
        )
    _check_precision(settings)
    ours: list[Callback] = [
        RankFailure(),
        NonFiniteGuard(on_nonfinite),
    ]  # before clipping, which would spread what is not finite
    if gradient_clip_val is not None:
        ours.append(GradientClipping(gradient_clip_val, gradient_clip_algorithm or "norm"))
    elif gradient_clip_algorithm is not None:
        GradientClipping(0, gradient_clip_algorithm)  # refuses a mistyped one, though nothing asks for it
    settings["strategy"] = _strategy(settings, kind.whole_backward)
    return pl.Trainer(callbacks=[*ours, *callbacks], **settings)


def _strategy(settings: dict[str, Any], whole_backward: bool) -> Any:
    """Return the strategy, with DDP in the form that a backward through one of the two networks needs.

    DDP waits in each backward for the gradient of every parameter, unless told to look which ones there are.
    """
    strategy, devices = settings.get("strategy", "auto"), settings.get("devices", "auto")
    several = (isinstance(devices, int) and devices > 1) or settings.get("num_nodes", 1) > 1
    if whole_backward or not (strategy == "ddp" or (strategy == "auto" and several)):
        return strategy
    return "ddp_find_unused_parameters_true"


def _check_precision(settings: dict[str, Any]) -> None:
    """Refuse float16 on a CPU, where Lightning would quietly take bfloat16 instead."""
    accelerator, precision = settings.get("accelerator", "auto"), str(settings.get("precision"))
    no_gpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if precision in ("16", "16-mixed") and (accelerator == "cpu" or (accelerator == "auto" and no_gpu)):
        raise ConfigError(f"trainer.precision={precision} needs a GPU; on a CPU take bf16-mixed or 32-true.")


LAST, BEST = "last.ckpt", "best.ckpt"
# The last checkpoint before the last: what there is to go on from, should the disk damage that one.
PREVIOUS = "previous.ckpt"


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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to write a checkpoint, with :func:`write_checkpoint_file`; of ``last.ckpt`` the former one stays too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: it cannot be written; the former one is untouched.
        """
        path = Path(path)
        with write_checkpoint_file(path) as partial:
            torch.save(checkpoint, partial)
            if path.name == LAST:
                sync_to_disk(partial)
                keep_previous(path)
