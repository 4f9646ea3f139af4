"""Steps in which the divergence loss is active: from the settings of a run, or from the weight that it logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from d2csr.checks import nested
from d2csr.errors import ConfigError, DataError
from d2csr.files import require_regular_file
from d2csr.plotting.run_log import EpochStarts, RunLog, epoch_starts
from d2csr.schedules import DivergenceWeightSchedule

SETTINGS = "hparams.yaml"  # beside the log
_MAX_BYTES = 256 * 2**10
_MAX_EPOCHS = 1_000_000
_SCHEDULE = ("weight", "after", "period", "active", "decay_every", "decay_factor")

Window = tuple[float, float]


def active_epochs(weight: Callable[[int], float], epochs: Iterable[int]) -> list[tuple[int, int]]:
    """Return first and last epoch, inclusive, of each group of successive epochs with a weight above 0."""
    groups = [list(group) for active, group in groupby(epochs, lambda epoch: weight(epoch) > 0) if active]
    return [(group[0], group[-1]) for group in groups]


def divergence_windows(log: RunLog) -> list[Window]:
    """Return the first step of each window of the divergence loss, and the first step after it.

    They follow from ``model.divergence`` in the settings beside the log. Without them, they are the epochs in which
    ``train/divergence_weight`` was above 0. A run without a divergence loss has none.
    """
    if "train/divergence" not in log.columns:
        return []
    starts, settings = epoch_starts(log.epochs), read_settings(log.file)
    schedule = _schedule(settings)
    if schedule is None:
        active = _logged_windows(log)
    else:
        second = _second_stage(log, starts, settings)
        count = min(starts.count if second is None else second, _MAX_EPOCHS)
        active = active_epochs(schedule, range(count))
    return [(starts.step(first), min(starts.step(last + 1), log.last_step + 1)) for first, last in active]


def second_stage_step(log: RunLog) -> float | None:
    """Return the first step of the second stage of ``optimization=sequential``, else ``None``."""
    starts = epoch_starts(log.epochs)
    epoch = _second_stage(log, starts, read_settings(log.file))
    return None if epoch is None else starts.step(epoch)


def _second_stage(log: RunLog, starts: EpochStarts, settings: dict[str, Any]) -> int | None:
    """Return the first epoch of the stage that trains the convergence network, else ``None``."""
    divergence, fusion = (log.columns.get(f"train/{name}") for name in ("reconstruction", "fusion"))
    if divergence is None or fusion is None or divergence.steps[-1] >= fusion.steps[0]:
        return None
    epochs = [_epoch(starts, step) for step in (divergence.steps[-1], fusion.steps[0])]
    named, total = nested(settings, "model", "divergence_epochs"), nested(settings, "trainer", "max_epochs")
    if not isinstance(named, int):
        named = total // 2 if isinstance(total, int) else epochs[1]
    return min(max(named, epochs[0] + 1), epochs[1])  # a resumed run may have had other settings


def read_settings(log: Path) -> dict[str, Any]:
    """Return the settings of a run from the file beside its log; empty if it is missing or cannot be read."""
    file = log.with_name(SETTINGS)
    try:
        require_regular_file(file, _MAX_BYTES)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (DataError, OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _schedule(settings: dict[str, Any]) -> DivergenceWeightSchedule | None:
    node = nested(settings, "model", "divergence")
    if not isinstance(node, dict):
        return None
    try:
        return DivergenceWeightSchedule(**{name: node[name] for name in _SCHEDULE})
    except (KeyError, ConfigError):
        return None


def _logged_windows(log: RunLog) -> list[tuple[int, int]]:
    """Return the epochs between which the logged weight stayed above 0."""
    weight = log.columns.get("train/divergence_weight")
    if weight is None:
        return []
    starts = epoch_starts(log.epochs)
    by_epoch = {_epoch(starts, step): value for step, value in zip(weight.steps, weight.values, strict=True)}
    return active_epochs(by_epoch.__getitem__, by_epoch)


def _epoch(starts: EpochStarts, step: float) -> int:
    row = int(np.searchsorted(starts.logged.steps, step))
    return int(starts.logged.values[min(row, len(starts.logged.values) - 1)]) if starts.count else 0
