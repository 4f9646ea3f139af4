from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

TINY = {"scale": 2, "features": 16, "groups": 1, "blocks": 1, "branching": [2, 2], "fusion_features": 8}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The settings of a network that trains in no time."""
    return dict(TINY)


@pytest.fixture
def batches() -> list[dict[str, Tensor]]:
    """Three batches of two images for a network of scale 2."""
    generator = torch.Generator().manual_seed(0)
    return [
        {"lr": torch.rand(2, 3, 6, 6, generator=generator), "hr": torch.rand(2, 3, 12, 12, generator=generator)}
        for _ in range(3)
    ]


@pytest.fixture
def trainer() -> Callable[..., pl.Trainer]:
    """Build a silent trainer on the CPU."""

    def build(**settings: Any) -> pl.Trainer:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return pl.Trainer(accelerator="cpu", devices=1, **{"max_epochs": 1, **quiet, **settings})

    return build


@pytest.fixture
def fit(trainer) -> Callable[..., pl.Trainer]:
    """Train a task on batches, in their order, in each epoch."""

    def train(task: pl.LightningModule, batches: list[dict[str, Tensor]], **settings: Any) -> pl.Trainer:
        made = trainer(**settings)
        made.fit(task, DataLoader(batches, batch_size=None))
        return made

    return train


@pytest.fixture
def copied() -> Callable[[torch.nn.Module], dict[str, Tensor]]:
    """Take a copy of a module's weights."""
    return lambda module: {name: value.clone() for name, value in module.state_dict().items()}
