"""Trainings that ``test_ranks.py`` runs in each of two processes, and once more alone.

``python ranks.py FOLDER [NAME …]`` saves the weights after each training, or after the error that ended it, as
``FOLDER/NAME-RANK.pt``.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from d2csr.errors import TrainingError
from d2csr.training import OPTIMIZATIONS, build_trainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import build_task

STEPS, GLOBAL_BATCH = 6, 4
SCOPES = ("image", "batch")
TRAININGS = {f"{mode}-{scope}": {"mode": mode, "scope": scope} for mode in OPTIMIZATIONS for scope in SCOPES}
TRAININGS |= {f"{mode}-clipped": {"mode": mode, "gradient_clip_val": 0.05} for mode in OPTIMIZATIONS}
TRAININGS |= {f"{mode}-accumulated": {"mode": mode, "accumulate_grad_batches": 2} for mode in ("joint", "sequential")}
TRAININGS |= {f"{mode}-skip": {"mode": mode, "bad": 3, "on_nonfinite": "skip"} for mode in OPTIMIZATIONS}
TRAININGS |= {f"{mode}-raise": {"mode": mode, "bad": 3} for mode in OPTIMIZATIONS}
TRAININGS |= {"alternating-buffer": {"mode": "alternating", "buffer": True}}


def global_batches() -> list[dict[str, torch.Tensor]]:
    """Return batches whose images differ in contrast, which shows which of them are standardised together."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(STEPS):
        contrast = torch.rand(GLOBAL_BATCH, 1, 1, 1, generator=generator)
        hr = torch.rand(GLOBAL_BATCH, 3, 16, 16, generator=generator) * contrast
        batches.append({"lr": hr[:, :, ::2, ::2].contiguous(), "hr": hr})
    return batches


class Poison(Callback):
    """Spoils one batch of the last process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer, task, batch, batch_idx) -> None:
        if batch_idx == self.number and trainer.global_rank == trainer.world_size - 1:
            batch["hr"] = batch["hr"] * math.nan


@contextmanager
def counted_all_reduce():
    """Collect the number of elements of each all-reduce that is called from Python."""
    sizes, original = [], dist.all_reduce
    dist.all_reduce = lambda tensor, *args, **kwargs: (sizes.append(tensor.numel()), original(tensor, *args, **kwargs))
    yield sizes
    dist.all_reduce = original


def train(mode, scope="image", bad=None, devices=2, without=None, buffer=False, **settings):
    """Train, and return the weights, the message of the error, if any, and the sizes of what was reduced."""
    rank, share = int(os.environ.get("RANK", 0)), GLOBAL_BATCH // devices
    mine = slice(rank * share, (rank + 1) * share)
    batches = [{name: value[mine] for name, value in batch.items()} for batch in global_batches()]
    batches = [batch for number, batch in enumerate(batches) if number != without]
    torch.manual_seed(0)
    stages = {"divergence_epochs": 1} if mode == "sequential" else {}
    divergence = {"weight": 1.0, "margin_same": 0.5, "margin_diff": 0.5, "after": -1}
    network = {"scale": 2, "features": 16, "groups": 1, "blocks": 1, "fusion_features": 16}
    adam = {"lr": 1e-3}
    task = build_task(
        optimization=mode, **network, optimizer=adam, divergence=divergence, divergence_scope=scope, **stages
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = build_trainer(
        optimization=mode,
        callbacks=[] if bad is None else [Poison(bad)],
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=2 if mode == "sequential" else 1,
        use_distributed_sampler=False,
        rank_timeout=1,
        **quiet,
        **settings,
    )
    if buffer:
        task.network.register_buffer("running_mean", torch.zeros(1))
    result = {"error": None}
    with counted_all_reduce() as result["reduced"]:
        try:
            trainer.fit(task, DataLoader(batches, batch_size=None, collate_fn=dict))
        except TrainingError as error:
            result["error"] = str(error)
    return {**result, "weights": task.network.state_dict()}


if __name__ == "__main__":
    for name in sys.argv[2:] or TRAININGS:
        torch.save(train(**TRAININGS[name]), Path(sys.argv[1]) / f"{name}-{os.environ['RANK']}.pt")
