"""Tasks for the tests, built from the shipped configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint

import d2csr.training
from d2csr.callbacks import BestCheckpoint, LastCheckpoint
from d2csr.commands.base import config_dir
from d2csr.training import D2CSRTask

_BODY = ("groups", "blocks", "reduction")
_NETWORK = ("scale", "features", "branching", "fusion_features", "body")
_MARGINS = ("margin_same", "margin_diff", "decay_rate")


@functools.cache
def _shipped() -> DictConfig:
    folder = Path(config_dir()) / "model"
    model = OmegaConf.load(folder / "d2csr.yaml")
    assert isinstance(model, DictConfig)
    del model["defaults"]
    model.network = OmegaConf.load(folder / "network" / "tree.yaml")
    model.scheduler = OmegaConf.load(folder / "scheduler" / "step.yaml")
    return OmegaConf.create({"model": model, "scale": 2, "optimization": "joint"})


def checkpoint_callbacks(run_dir: Path, **settings: Any) -> list[Checkpoint]:
    """Return best and last checkpoint, with the settings of the latter, for a run folder."""
    folder = run_dir / "checkpoints"
    return [BestCheckpoint(folder), LastCheckpoint(folder, **settings)]


def model_config(
    *,
    optimization: str,
    optimizer: dict[str, Any] | None = None,
    divergence: dict[str, Any] | None = None,
    divergence_scope: str = "batch",
    **settings: Any,
) -> DictConfig:
    """Return the shipped configuration of the model, with these settings in place of some of its own."""
    optimizer, divergence = dict(optimizer or {}), dict(divergence or {})
    decay = {"decay_every": optimizer.pop("decay_every")} if "decay_every" in optimizer else {}
    margins = {name: divergence.pop(name) for name in _MARGINS if name in divergence}
    network = {name: settings.pop(name) for name in _NETWORK if name in settings}
    body = {name: settings.pop(name) for name in _BODY if name in settings}
    network["body"] = {**network.get("body", {}), **body}
    changes = {
        "network": network,
        "optimizer": optimizer,
        "scheduler": {**decay, **settings.pop("scheduler", {})},
        "divergence": divergence,
        "losses": {"divergence": {"scope": divergence_scope, **margins}, **settings.pop("losses", {})},
        **settings,
    }
    cfg = OmegaConf.merge(_shipped(), {"optimization": optimization, "model": changes})
    for name, loss in changes["losses"].items():  # another target has none of the shipped arguments
        if loss is None or "_target_" in loss:
            cfg.model.losses[name] = loss
    return cfg


def build_task(**settings: Any) -> D2CSRTask:
    """Build the task of :func:`model_config`."""
    model = OmegaConf.to_container(model_config(**settings).model, resolve=True)
    parts = {name: instantiate(model.pop(name), _convert_="all") for name in ("losses", "optimizer", "scheduler")}
    model.pop("_target_")
    return d2csr.training.build_task(**model, **parts)


def mostly_slow(cases: Iterable[Any], every: int = 6) -> list[Any]:
    """Mark the cases of a test slow, except every sixth: all cases together take too long for the quick tests."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] if number % every else []
        )
        for number, case in enumerate(cases)
    ]


def load_task(like: D2CSRTask, path: Path) -> D2CSRTask:
    """Load a task by Lightning's load_from_checkpoint, with the objects of another task."""
    return type(like).load_from_checkpoint(
        path,
        weights_only=True,
        losses=like.losses,
        divergence=like.divergence,
        divergence_gradient=like.divergence_gradient,
        optimizer=like.optimizer_factory,
        scheduler=like.scheduler_factory,
        scheduler_interval=like.scheduler_interval,
        divergence_epochs=like.divergence_epochs,
        protocol="d2csr",
        ema_decay=None,
    )
