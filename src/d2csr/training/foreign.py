"""Checks of tasks and data modules that are not those of this package."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from d2csr.errors import ConfigError
from d2csr.training.task import D2CSRTask

_TASK = ("training_step", "configure_optimizers")
_DATA = ("train_dataloader",)


def check_modules(task: Any, datamodule: Any) -> None:
    """Check that a task and a data module of any package have the methods that training calls.

    Raises:
        ConfigError: one of them has another type, or lacks a method.
    """
    _check("model", task, pl.LightningModule, _TASK, " A network of your own is a body: docs/bodies.md.")
    _check("data", datamodule, pl.LightningDataModule, _DATA, "")


def require_own(task: Any, key: str) -> None:
    """Refuse a setting that needs the network of this package."""
    if not isinstance(task, D2CSRTask):
        raise ConfigError(f"{key}: {_name(task)} is not a task of d2csr; load the weights in its constructor.")


def _check(key: str, module: Any, kind: type, methods: tuple[str, ...], advice: str) -> None:
    missing = [name for name in methods if not _has(module, name, kind)]
    lacks = f" It lacks {', '.join(missing)}." if missing else ""
    if not isinstance(module, kind):
        raise ConfigError(f"{key}._target_: {_name(module)} is no {kind.__name__}.{lacks}{advice}")
    if missing:
        raise ConfigError(f"{key}._target_: {_name(module)} is incomplete.{lacks}")


def _has(module: Any, name: str, kind: type) -> bool:
    return is_overridden(name, module, kind) if isinstance(module, kind) else callable(getattr(module, name, None))


def _name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
