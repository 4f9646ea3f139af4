"""Finding the checkpoint that a run goes on from, and making sure that it can."""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from d2csr.checkpoints import read_checkpoint
from d2csr.checkpoints.loading import Checkpoint, find_checkpoint
from d2csr.checkpoints.resume_state import read_training_state
from d2csr.distributed import is_rank_zero
from d2csr.errors import CheckpointError, UserError
from d2csr.files import write_checkpoint_file
from d2csr.training.state import TrainingState
from d2csr.training.task import D2CSRTask
from d2csr.training.trainer import BEST, LAST, PREVIOUS

_log = logging.getLogger(__name__)

AUTO = "auto"
_CANDIDATES = (LAST, PREVIOUS, BEST)


@dataclass(frozen=True)
class Resumable:
    """A training checkpoint to go on from.

    Attributes:
        path: the file.
        position: how far it is.
        step: batches that it has seen, in all.
        settings: of its run; may be empty.
    """

    path: Path
    position: TrainingState
    step: int
    settings: dict[str, Any]

    @property
    def run_dir(self) -> Path:
        """The run folder that it lies in."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent

    def is_finished(self, trainer: pl.Trainer) -> bool:
        """Say whether the trainer would have nothing left to do."""
        epochs, steps = trainer.max_epochs, trainer.max_steps
        return (epochs not in (None, -1) and self.position.epoch >= epochs) or (steps != -1 and self.step >= steps)


def holds_run(run_dir: str | Path) -> bool:
    """Say whether there is anything to go on from in a run folder."""
    return any((Path(run_dir) / "checkpoints" / name).exists() for name in _CANDIDATES)


def find_resumable(resume: str | Path | None, run_dir: str | Path, task: D2CSRTask) -> Resumable | None:
    """Return what to go on from.

    Args:
        resume: a run folder, a training checkpoint, ``auto`` for what the run folder holds, if anything, or None.
        run_dir: the run folder.
        task: what is to be trained; its network gets the weights.

    Raises:
        CheckpointError: it is missing, broken with no other to fall back on, of another architecture, or no checkpoint
            of a training.
    """
    if resume is None:
        return None
    if str(resume) == AUTO:
        if not holds_run(run_dir):
            return None
        resume = run_dir
    checkpoint = _first_whole(Path(resume).expanduser())
    if checkpoint.official:
        raise CheckpointError(
            f"{checkpoint.path}: an official checkpoint holds weights alone; use init_from=… instead of resume=…."
        )
    checkpoint.load_into(task.network)
    state = read_training_state(checkpoint.path)
    before, now = state["optimization"], task.optimization
    if before != now:
        raise CheckpointError(
            f"{checkpoint.path}: was trained with optimization={before}; resume with that, not with {now}."
        )
    return Resumable(checkpoint.path, TrainingState(**state["position"]), state["step"], state["settings"])


@contextmanager
def restoring(path: Path | None) -> Iterator[None]:
    """Turn an error of Lightning while it restores a training state into a message.

    Raises:
        CheckpointError: the state in ``path`` does not fit the run.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = traceback.walk_tb(error.__traceback__)
        if path is None or not any("checkpoint_connector" in frame.f_code.co_filename for frame, _ in frames):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"{path}: its training state cannot be restored ({reason}). Resume from another checkpoint, or use "
            "init_from=… for its weights."
        ) from error


def _first_whole(path: Path) -> Checkpoint:
    """Read the checkpoint that a path means; where that is damaged, the one before it."""
    found = find_checkpoint(path, preferred=_CANDIDATES)
    others = [found.with_name(name) for name in _CANDIDATES] if path.is_dir() or found.name == LAST else []
    candidates = list(dict.fromkeys([found, *(other for other in others if other.is_file())]))
    for candidate in candidates[:-1]:
        try:
            return read_checkpoint(candidate)
        except CheckpointError as error:
            _log.warning("%s Trying an older one.", error)
    return read_checkpoint(candidates[-1])


def report(resumable: Resumable, settings: dict[str, Any]) -> None:
    """Say, in the first process, where a run goes on, and which settings are others than before."""
    if not is_rank_zero():
        return
    position = resumable.position
    _log.info("resume: %s, epoch %d, batch %d", resumable.path, position.epoch, position.batch)
    if not (resumable.settings and settings):
        return
    sentences, decisive = changes(resumable.settings, settings)
    for sentence in sentences:
        _log.info("resume: %s", sentence)
    if decisive:
        _log.warning(
            "resume: the weights will not be those of a run without a stop, because of %s", ", ".join(decisive)
        )


def carry_over(resumable: Resumable, run_dir: Path, loggers: list[Any]) -> None:
    """Give a run folder the best checkpoint and the log of the run that goes on in it.

    Raises:
        CheckpointError: the best checkpoint cannot be copied.
    """
    best = resumable.run_dir / "checkpoints" / BEST
    here = run_dir / "checkpoints" / BEST
    if best.is_file() and best.resolve() != here.resolve():
        with write_checkpoint_file(here) as partial:
            shutil.copyfile(best, partial)
    for logger in loggers:
        if hasattr(logger, "go_on"):
            logger.go_on(resumable.run_dir, resumable.position.rows)


def set_aside(run_dir: Path) -> None:
    """Keep the checkpoints of an earlier run in the same folder, as ``checkpoints.1``."""
    if not holds_run(run_dir):
        return
    number = 1
    while (kept := run_dir / f"checkpoints.{number}").exists():
        number += 1
    (run_dir / "checkpoints").rename(kept)
    _log.warning("%s: holds an earlier run; its checkpoints are now in %s. resume=… would have gone on.", run_dir, kept)


def check_exclusive(resume: Any, init_from: Any) -> None:
    """Check that not both are named; ``resume=auto`` goes before ``init_from`` where there is something to resume.

    Raises:
        CheckpointError: both are.
    """
    if resume and str(resume) != AUTO and init_from:
        raise CheckpointError("resume=… and init_from=… exclude each other: to resume brings its own weights.")


# Settings that change nothing in the weights; of a group, all of it.
_HARMLESS = (
    "resume",
    "init_from",
    "checkpoint",
    "logger",
    "data.num_workers",
    "data.cache",
    "data.list_dir",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.check_val_every_n_epoch",
    "trainer.num_sanity_val_steps",
    "trainer.limit_val_batches",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.default_root_dir",
    "model.protocol",
)
_UNSAID = ("resume", "init_from")
_MISSING = "not set"


def changes(before: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Compare the settings of two runs.

    Args:
        before: nested dicts of plain values.
        now: the same.

    Returns:
        A sentence for each setting that differs, ``data.batch_size was 4, is 8``; and the names of those among them by
        which the weights become others than without an interruption.
    """
    old, new = _flat(before), _flat(now)
    differing = [
        name
        for name in dict.fromkeys([*old, *new])
        if old.get(name, _MISSING) != new.get(name, _MISSING) and not _in(name, _UNSAID)
    ]
    sentences = [f"{name} was {_text(old, name)}, is {_text(new, name)}" for name in differing]
    return sentences, [name for name in differing if not _in(name, _HARMLESS)]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = value
    return flat


def _in(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _text(settings: dict[str, Any], name: str) -> str:
    if name not in settings:
        return _MISSING
    value = settings[name]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
