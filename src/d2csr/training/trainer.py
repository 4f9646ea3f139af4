"""Lightning's Trainer for a mode of optimization, and atomic writes of its checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import profilers
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO, TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from d2csr.callbacks.gradient_clipping import GradientClipping
from d2csr.callbacks.last_checkpoint import LAST, PREVIOUS
from d2csr.callbacks.nonfinite_guard import NonFiniteGuard
from d2csr.callbacks.rank_failure import RankFailure
from d2csr.callbacks.time_limit import TimeLimit
from d2csr.callbacks.training_tf32 import TrainingTF32
from d2csr.checks import OPTIMIZATIONS, flag, number, one_of, shown, whole_number
from d2csr.devices import check_visible_gpus, needs_ddp
from d2csr.errors import ConfigError
from d2csr.files import atomic_write, sync_to_disk, write_checkpoint_file
from d2csr.launcher_watch import end_with_launcher
from d2csr.training.build import TASKS
from d2csr.training.ddp import FlatReductionStrategy

# Arguments of Lightning's Trainer that a training has no use for: the only value beside None, and the reason.
_WITHOUT_USE: dict[str, tuple[Any, str]] = {
    "barebones": (False, "no checkpoint would be written"),
    "limit_test_batches": (None, "a training runs no test"),
    "limit_predict_batches": (None, "a training runs no prediction"),
    "inference_mode": (True, "Lightning does not use it in the validation of a training"),
    "use_distributed_sampler": (False, "the samplers of the data share the batches among the devices"),
    "model_registry": (None, "checkpoints stay in the run folder"),
}
_PROFILERS: dict[str, type[profilers.Profiler]] = {
    "simple": profilers.SimpleProfiler,
    "advanced": profilers.AdvancedProfiler,
    "pytorch": profilers.PyTorchProfiler,
}
_NAMES = {
    "precision": ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16"),
    "strategy": ("auto", "ddp", "ddp_find_unused_parameters_true"),
    "profiler": tuple(_PROFILERS),
}
_CHECKS: dict[str, Callable[[str, Any], Any]] = {  # Lightning checks some late or not at all; -1: no limit
    **dict.fromkeys(("max_epochs", "max_steps", "num_sanity_val_steps"), partial(whole_number, least=-1)),
    **dict.fromkeys(("min_epochs", "min_steps", "log_every_n_steps"), partial(whole_number, least=0)),
    **dict.fromkeys(("num_nodes", "check_val_every_n_epoch", "accumulate_grad_batches"), whole_number),
    **dict.fromkeys(("limit_train_batches", "val_check_interval"), partial(number, above=0)),
    **dict.fromkeys(("limit_val_batches", "overfit_batches"), partial(number, least=0)),
    **dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), flag),
    **dict.fromkeys(("benchmark", "detect_anomaly"), flag),
    "deterministic": partial(one_of, choices=(True, False, "warn")),
}


def build_trainer(
    *,
    optimization: str,
    on_nonfinite: str = "raise",
    gradient_clip_val: float | None = None,
    gradient_clip_algorithm: str | None = None,
    rank_timeout: float = 30,
    tf32: bool = True,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> pl.Trainer:
    """Build the Trainer.

    Args:
        optimization: the mode of optimization.
        on_nonfinite: ``raise`` or ``skip``: what to do about a loss that is not finite.
        gradient_clip_val: the largest norm, or absolute value, of a network's gradient; None does not clip.
        gradient_clip_algorithm: ``norm`` (the default) or ``value``.
        rank_timeout: minutes after which a rank that does not answer ends the others; with the strategy ``ddp``.
        tf32: compute float32 in TF32 on NVIDIA GPUs; False computes in IEEE float32, which is slower.
        callbacks: more callbacks.
        settings: other arguments of Lightning's Trainer. A ``profiler`` that is named (``simple``, ``advanced`` or
            ``pytorch``) writes ``fit-profile.txt`` into ``default_root_dir``.

    Raises:
        ConfigError: a setting is unknown, has an impossible value, or does not work in a training or with the mode.
    """
    kind = TASKS[one_of("optimization", optimization, OPTIMIZATIONS)]
    if kind.steps_itself and settings.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            f"accumulate_grad_batches: optimization={optimization} has two steps a batch and cannot accumulate; "
            "raise data.batch_size, or use optimization=joint or sequential."
        )
    _check_settings(settings)
    if settings.get("enable_checkpointing") is False and any(isinstance(c, Checkpoint) for c in callbacks):
        raise ConfigError(
            "enable_checkpointing: last.ckpt is always written; ~callbacks.best_checkpoint omits best.ckpt."
        )
    check_visible_gpus(settings)
    if settings.get("deterministic"):
        settings["benchmark"] = False  # it would choose among kernels by their speed, so another one in another run
    if (profiler := settings.get("profiler")) is None:
        settings["profiler"] = NoProfiler()
    elif isinstance(profiler, str):
        settings["profiler"] = _PROFILERS[profiler](dirpath=settings.get("default_root_dir") or ".", filename="profile")
    clipping = GradientClipping(gradient_clip_val or 0, gradient_clip_algorithm or "norm")
    # The guard comes before clipping, which would spread NaN.
    guards = [RankFailure(), NonFiniteGuard(on_nonfinite), TrainingTF32(tf32), *([clipping] if clipping.value else [])]
    if (duration := settings.pop("max_time", None)) is not None:
        callbacks = [*callbacks, TimeLimit(duration)]
    timeout = timedelta(minutes=number("rank_timeout", rank_timeout, above=0))
    if needs_ddp(settings):
        end_with_launcher()
        settings["strategy"] = (DDPStrategy if kind.whole_backward else FlatReductionStrategy)(timeout=timeout)
    return pl.Trainer(callbacks=[*guards, *callbacks], **settings)


class NoProfiler(profilers.PassThroughProfiler):
    """Lightning's profiler that records nothing, without a generator for each of the 36 calls in a step."""

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]
        """Return a context that does nothing."""
        return nullcontext(action_name)


def _check_settings(settings: dict[str, Any]) -> None:
    """Refuse unknown arguments, arguments without an effect, and values at which Lightning fails without a message."""
    known = inspect.signature(pl.Trainer).parameters
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"{name}: Lightning's Trainer has no such argument; it has {', '.join(known)}.")
        if value is None:
            continue
        if name in _WITHOUT_USE and value != _WITHOUT_USE[name][0]:
            raise ConfigError(f"{name}: {value} is not for a training: {_WITHOUT_USE[name][1]}.")
        if name in _CHECKS:
            _CHECKS[name](name, value)
        elif name in _NAMES and isinstance(value, str | int):
            one_of(name, str(value), _NAMES[name])
    if not isinstance(duration := settings.get("max_time"), str | dict | timedelta | None):
        raise ConfigError(f'max_time: must be "days:hours:minutes:seconds", got {shown(duration)}.')
    plugins = settings.get("plugins") or []
    if any(isinstance(plugin, CheckpointIO) for plugin in (plugins if isinstance(plugins, list) else [plugins])):
        raise ConfigError("plugins: a CheckpointIO would have no effect: checkpoints are written atomically.")
    accelerator, precision = settings.get("accelerator", "auto"), str(settings.get("precision"))
    no_gpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if precision in ("16", "16-mixed") and (accelerator == "cpu" or (accelerator == "auto" and no_gpu)):
        raise ConfigError(f"precision: {precision} needs a GPU; on a CPU use bf16-mixed or 32-true.")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically; the former ``last.ckpt`` is kept as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or raise :class:`CheckpointError` and leave the former one unchanged."""
        path = Path(path)
        with write_checkpoint_file(path) as partial:
            torch.save(checkpoint, partial)
            if path.name == LAST:
                sync_to_disk(partial)
                keep_previous(path)


def keep_previous(last: Path) -> None:
    """Keep a checkpoint that is about to be replaced as :data:`PREVIOUS` beside it."""
    if not last.is_file():
        return
    previous = last.with_name(PREVIOUS)
    try:
        with atomic_write(previous) as link:
            link.hardlink_to(last)
    except OSError:  # a file system without hard links
        last.replace(previous)


def remove_partial(folder: Path) -> None:
    """Remove temporary files of checkpoints that a killed process has left."""
    for file in folder.glob(".*.ckpt.*.partial"):
        file.unlink(missing_ok=True)
