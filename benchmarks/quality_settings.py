"""Candidates of ``time_to_quality.py``: the network, the recipe, and the recipe with one part changed."""

from __future__ import annotations

import argparse
from typing import Any

from hydra import compose, initialize_config_dir

from d2csr.commands.base import config_dir

BICUBIC = "bicubic"
PLAIN = "plain loop"
RECIPE = "realsr_x4_fast"
RATE = 3e-3  # of both
# The network, and the batches: the 41 training images of the photographs are 10 steps an epoch.
SMALL = [
    *("scale=2", "data=photographs", "data.patches_per_image=1", "data.batch_size=4", "data.patch_size=16"),
    *("data.cache=ram", "data.num_workers=0", "model.network.features=16", "model.network.fusion_features=16"),
    *("+model.network.body.groups=1", "+model.network.body.blocks=2", "+model.network.body.reduction=8"),
    *("expected_batch=null", "trainer.enable_progress_bar=false", f"model.optimizer.lr={RATE}"),
]
ADAMW = ["model.optimizer._target_=torch.optim.AdamW"]
TORCH = ["model.init=torch"]
# Sizes of the patches from a share of the training on.
GROWING = {
    "patches of 8, then 16": [(0.0, 8), (0.5, 16)],
    "patches of 12, then 24": [(0.0, 12), (0.6, 24)],
}


def changes(epochs: int) -> dict[str, list[str]]:
    """Return settings that change the parts of a recipe of so many epochs that matter most."""
    return {
        RECIPE: [],
        "AdamW": ADAMW,
        "PyTorch's initial weights": TORCH,
        "AdamW and PyTorch's initial weights": [*ADAMW, *TORCH],
        "a tenth of the epochs": [f"trainer.max_epochs={round(epochs * 0.4)}"],
    }


def means(epochs: int) -> dict[str, list[str]]:
    """Return settings that change another part."""
    tenth = max(1, round(epochs / 10))
    cosine = ("warmup", "total", "minimum")
    loss = ["model.divergence.weight=0.2", "model.divergence.period=1", "model.divergence.active=1"]
    return {
        # In Adam the weight decay is a part of the gradient: that of the paper.
        "Adam": ["model.optimizer._target_=torch.optim.Adam", "model.optimizer.weight_decay=1e-8"],
        "alternating": ["optimization=alternating"],
        "step decay": [
            *("model.scheduler._target_=d2csr.schedules.StepDecay", f"+model.scheduler.decay_every={tenth}"),
            *("+model.scheduler.decay_factor=0.5", *(f"~model.scheduler.{name}" for name in cosine)),
        ],
        "no moving average": ["model.ema_decay=null"],
        "bf16-mixed": ["trainer.precision=bf16-mixed"],
        "batch 2": ["data.batch_size=2"],
        "batch 8": ["data.batch_size=8"],
        **{name: [] for name in GROWING},
        "divergence loss of weight 0.2": [*loss, "model.divergence.after=-1"],
        "the same from the middle on": [*loss, f"model.divergence.after={epochs // 2}"],
        "sequential": ["optimization=sequential"],
    }


def configuration(name: str, seed: int, arguments: argparse.Namespace, changed: list[str]) -> Any:
    """Return the settings of a run, as composed by Hydra."""
    trainer = "gpu" if arguments.device == "cuda" else "cpu"
    settings = [*SMALL, f"trainer={trainer}", f"seed={seed}", *arguments.overrides]
    if name not in (PLAIN, BICUBIC):
        epochs = round(arguments.epochs * arguments.share)
        # In proportion to the length, which is a hundredth of the experiment's and less.
        lengths = ["model.scheduler.warmup=1", "model.ema_decay=0.95", f"trainer.max_epochs={epochs}"]
        settings = [f"+experiment={RECIPE}", *settings, *lengths, *changed]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("train", settings)
