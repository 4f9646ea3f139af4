"""Lightning's CSV logger, but for one thing: it deletes the log that an earlier run left in the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as pl_loggers
from pytorch_lightning.loggers.logger import rank_zero_experiment


class CSVLogger(pl_loggers.CSVLogger):
    """Writes ``metrics.csv``; one that is there already, of a run that is now resumed, is kept as ``metrics.1.csv``.

    All arguments are those of Lightning's.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer; made when it is first asked for."""
        if self._experiment is None:
            _keep(Path(self.log_dir) / "metrics.csv")
        return super().experiment


def _keep(log: Path) -> None:
    if not log.is_file():
        return
    number = 1
    while (kept := log.with_suffix(f".{number}.csv")).exists():
        number += 1
    log.rename(kept)
