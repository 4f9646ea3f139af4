"""Checkpoint that a run resumes from, and the comparison of its settings with the present ones."""

from __future__ import annotations

import logging
import re
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from d2csr.callbacks.best_checkpoint import BEST
from d2csr.callbacks.last_checkpoint import LAST, PREVIOUS
from d2csr.checkpoints import read_checkpoint
from d2csr.checkpoints.loading import Checkpoint, find_checkpoint
from d2csr.checkpoints.own import read_training_state
from d2csr.distributed import is_rank_zero
from d2csr.errors import CheckpointError, UserError, is_out_of_memory, one_line
from d2csr.files import write_checkpoint_file
from d2csr.internals import was_restoring
from d2csr.loggers import CSVLogger
from d2csr.renamed import RENAMED
from d2csr.resumable_loop import TrainingState
from d2csr.training.task import D2CSRTask

_log = logging.getLogger(__name__)

AUTO = "auto"
_CANDIDATES = (LAST, PREVIOUS, BEST)


@dataclass(frozen=True)
class Resumable:
    """A training checkpoint to resume from, its optimizer steps, and the settings of its run, if any."""

    path: Path
    state: TrainingState
    step: int
    settings: dict[str, Any]

    @property
    def run_dir(self) -> Path:
        """The run folder of the file."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent

    def is_finished(self, trainer: pl.Trainer) -> bool:
        """Return whether the trainer has nothing left to do."""
        epochs, steps = trainer.max_epochs, trainer.max_steps
        return (epochs not in (None, -1) and self.state.epoch >= epochs) or (steps != -1 and self.step >= steps)


def holds_run(run_dir: str | Path) -> bool:
    """Return whether a run folder holds a checkpoint to resume from."""
    return any((Path(run_dir) / "checkpoints" / name).exists() for name in _CANDIDATES)


def resumed_network(resume: str | Path | None, run_dir: str | Path) -> dict[str, Any] | None:
    """Return the settings of the network that a run resumes with, or None; errors are those of find_resumable."""
    path = _source(resume, run_dir)
    return None if path is None else _first_readable(path).settings


def find_resumable(resume: str | Path | None, run_dir: str | Path, task: pl.LightningModule) -> Resumable | None:
    """Return the checkpoint to resume from, and load its weights into a task of this package; None to start anew.

    ``resume`` is a run folder, a training checkpoint, ``auto`` (the run folder, if it holds a run) or None.

    Raises:
        CheckpointError: it is missing, of another architecture or mode, no training checkpoint, or damaged, as are all
            others of its run.
    """
    source = _source(resume, run_dir)
    if source is None:
        return None
    if not isinstance(task, D2CSRTask):  # Lightning loads its weights
        path = find_checkpoint(source, preferred=_CANDIDATES)
        state = read_training_state(path)
    else:
        checkpoint = _first_readable(source)
        path = checkpoint.path
        if checkpoint.official:
            raise CheckpointError(f"{path}: holds weights alone; use init_from=… instead of resume=….")
        checkpoint.load_into(task.network)
        state = read_training_state(path)
        before, now = state["optimization"], task.optimization
        if before != now:
            raise CheckpointError(f"{path}: was trained with optimization={before}; resume with that, not with {now}.")
    return Resumable(path, TrainingState(**state["position"]), state["step"], state["settings"])


def _source(resume: str | Path | None, run_dir: str | Path) -> str | Path | None:
    return resume if str(resume) != AUTO else run_dir if holds_run(run_dir) else None


def _first_readable(path: str | Path) -> Checkpoint:
    """Read the checkpoint at a path or, if it is damaged, the one before it."""
    found = find_checkpoint(path, preferred=_CANDIDATES)
    is_run = Path(path).expanduser().is_dir() or found.name == LAST
    others = [found.with_name(name) for name in _CANDIDATES if found.with_name(name).is_file()] if is_run else []
    *former, oldest = dict.fromkeys([found, *others])
    for candidate in former:
        try:
            return read_checkpoint(candidate)
        except CheckpointError as error:
            _log.warning("%s Trying an older one.", error)
    return read_checkpoint(oldest)


# Modules that use the training state of a checkpoint, some of it at the first step only.
_USERS = re.compile(
    r"torch\.optim\.|pytorch_lightning\.loops\.progress$|d2csr\.training\.scheduling$|d2csr\.callbacks\.ema$"
)
_OF_MALFORMED_STATE = (TypeError, AttributeError, LookupError, ValueError, RuntimeError)


@contextmanager
def restoring(path: Path | None) -> Iterator[None]:
    """Raise :class:`CheckpointError` if the training state in ``path`` cannot be restored, or is of wrong types."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if path is None or not (was_restoring(error) or _used_state(error)) or is_out_of_memory(error):
            raise
        reason = one_line(f"{type(error).__name__}: {error}")
        raise CheckpointError(
            f"{path}: its training state cannot be restored ({reason}). Resume from another checkpoint, or use "
            "init_from=… for its weights."
        ) from error


def _used_state(error: Exception) -> bool:
    """Return whether an error of a malformed state was raised in code that uses it."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, _OF_MALFORMED_STATE) and any(map(_USERS.match, modules))


def carry_over(resumable: Resumable, run_dir: Path, loggers: list[Any]) -> None:
    """Copy best checkpoint and log of the resumed run into another run folder, or raise :class:`CheckpointError`."""
    best = resumable.run_dir / "checkpoints" / BEST
    here = run_dir / "checkpoints" / BEST
    if best.is_file() and best.resolve() != here.resolve():
        with write_checkpoint_file(here) as partial:
            shutil.copyfile(best, partial)
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            logger.continue_from(resumable.run_dir, resumable.state.rows)


def set_aside(run_dir: Path) -> None:
    """Rename the checkpoints of an earlier run in the folder to ``checkpoints.1``."""
    if not holds_run(run_dir):
        return
    free = next(path for n in count(1) if not (path := run_dir / f"checkpoints.{n}").exists())
    (run_dir / "checkpoints").rename(free)
    _log.warning("%s: holds an earlier run; its checkpoints are now in %s. To resume it, use resume=….", run_dir, free)


def log_resume(resumable: Resumable, settings: dict[str, Any]) -> None:
    """Log the resumed checkpoint and the settings that differ, on rank 0."""
    if not is_rank_zero():
        return
    _log.info("resume: %s, epoch %d, batch %d", resumable.path, resumable.state.epoch, resumable.state.batch)
    sentences, decisive = changes(resumable.settings, settings) if resumable.settings and settings else ([], [])
    for sentence in sentences:
        _log.info("resume: %s", sentence)
    if decisive:
        names = ", ".join(decisive)
        _log.warning("resume: the weights will differ from those of an uninterrupted run, because of %s", names)


# Settings and groups of settings that do not change the weights.
_HARMLESS = (
    *("checkpoint", "logger", "panels", "plugins", "expected_batch"),
    *("callbacks.best_checkpoint", "callbacks.log", "callbacks.panels", "callbacks.progress", "callbacks.curves"),
    *("data.num_workers", "data.cache", "data.list_dir", "model.protocol", "model.init"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.check_val_every_n_epoch"),
    *("trainer.num_sanity_val_steps", "trainer.limit_val_batches", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir"),
    "trainer.rank_timeout",
)
_NOT_COMPARED = ("resume", "init_from")
# Settings that were constants in earlier versions.
_FORMERLY_FIXED = {
    "model.scheduler.decay_factor": 0.5,
    "model.divergence.decay_factor": 0.5,
    "model.init": "torch",
    "model.losses.divergence.error_term": True,
    "trainer.tf32": True,
}
_MISSING = "not set"
_SHOWN = 500  # characters of a setting in a message


def changes(before: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return a sentence for each setting of two runs that differs, and the names of those that change the weights.

    The settings are nested dicts of plain values. A sentence is ``data.batch_size was 4, is 8``.
    """
    old, new = _flat(before), _flat(now)
    first_format = "model.features" in old and "model.network.features" in new
    old = {RENAMED[name] if RENAMED.get(name) in new else name: value for name, value in old.items()}
    old = {name: value for name, value in _FORMERLY_FIXED.items() if name in new} | old
    if first_format:  # both lack the other's new settings
        new = {name: value for name, value in new.items() if name in old}
        old = {name: value for name, value in old.items() if name in new}
        old["data._target_"] = new.get("data._target_")  # the classes have moved; data.name tells them apart
    pairs = {name: (old.get(name, _MISSING), new.get(name, _MISSING)) for name in dict.fromkeys([*old, *new])}
    differing = [name for name, (was, is_) in pairs.items() if was != is_ and not _in(name, _NOT_COMPARED)]
    sentences = [f"{name} was {_text(pairs[name][0])}, is {_text(pairs[name][1])}" for name in differing]
    return sentences, [name for name in differing if not _in(name, _HARMLESS)]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _in(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _text(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
