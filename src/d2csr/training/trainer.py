"""Lightning's Trainer for a mode of optimization: its settings as Lightning has them, and right in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from d2csr.errors import ConfigError
from d2csr.processes import EndTogether
from d2csr.training.build import optimization_named
from d2csr.training.clipping import GradientClipping
from d2csr.training.guard import NonFiniteGuard


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
        on_nonfinite: what to do about a loss that is not finite; see :class:`d2csr.training.guard.NonFiniteGuard`.
        gradient_clip_val: where to clip gradients; see :class:`d2csr.training.clipping.GradientClipping`.
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
        EndTogether(),
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
