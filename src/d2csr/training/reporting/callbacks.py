"""What tells a user how a training goes, but for the log, which every task brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Callback

from d2csr.training.reporting.log import SettingsLog
from d2csr.training.reporting.panels import ValidationPanels
from d2csr.training.reporting.progress import TrainingProgress


def reporting_callbacks(
    run_dir: str | Path, *, settings: dict[str, Any], panels: dict[str, Any], progress: bool
) -> list[Callback]:
    """Return what hands the settings to the loggers, draws pictures and shows the progress.

    Args:
        run_dir: the run folder; pictures go to its ``panels/``.
        settings: of the whole run, as plain values.
        panels: the settings of :class:`d2csr.training.reporting.panels.ValidationPanels`.
        progress: show :class:`d2csr.training.reporting.progress.TrainingProgress`.

    Raises:
        ConfigError: a setting is out of its range.
    """
    callbacks: list[Callback] = [SettingsLog(settings), ValidationPanels(Path(run_dir) / "panels", **panels)]
    return [*callbacks, TrainingProgress()] if progress else callbacks
