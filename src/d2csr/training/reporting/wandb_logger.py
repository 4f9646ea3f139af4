"""Lightning's logger for Weights & Biases, but that a resumed run goes on in W&B too, and mistakes end in a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as pl_loggers
from pytorch_lightning.loggers.logger import rank_zero_experiment

from d2csr.errors import ConfigError


class WandbLogger(pl_loggers.WandbLogger):
    """Logs to Weights & Biases.

    Args:
        save_dir: the run folder; W&B keeps its files in ``wandb/`` there, and ``wandb/id.txt`` names its run.
        resume_from: what is resumed, if anything is: then the W&B run that was logged from the same folder goes on.
        settings: all other arguments are those of Lightning's logger.

    Raises:
        ConfigError: when W&B is first needed, it cannot be reached, or nobody is logged in.
    """

    def __init__(self, save_dir: str | Path, resume_from: str | None = None, **settings: Any) -> None:
        self._id_file = Path(save_dir) / "wandb" / "id.txt"
        if resume_from and self._id_file.is_file() and not settings.get("id"):
            settings["id"] = self._id_file.read_text(encoding="utf-8").strip()
        super().__init__(save_dir=save_dir, **settings)
        self._wandb_init.pop("anonymous", None)  # Lightning still sets it; W&B warns that it means nothing any more

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; begun when it is first asked for."""
        if self._experiment is not None:
            return self._experiment
        from wandb.errors import Error

        try:
            self._id_file.parent.mkdir(parents=True, exist_ok=True)  # W&B takes another folder if it is not there
            run = super().experiment
        except Error as error:
            raise ConfigError(
                f"logger=wandb: {str(error).rstrip('.')}. WANDB_MODE=offline keeps everything on this machine; "
                "logger=csv does without W&B."
            ) from None
        self._id_file.write_text(f"{run.id}\n", encoding="utf-8")
        return run
