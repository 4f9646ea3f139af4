"""Losses after 500 steps in lower precision, against IEEE float32."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import PRECISIONS, make_task, make_trainer, network, photograph_batches
from pytorch_lightning.callbacks import Callback

_WITHIN = 0.02


class _Losses(Callback):
    """Adds up the losses of the last steps, without a sync."""

    def __init__(self, steps: int, last: int) -> None:
        self.first = steps - last
        self.last = last
        self.total: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx >= self.first:
            for name, value in outputs["losses"].items():
                self.total[name] = self.total.get(name, 0) + value.float()

    def means(self) -> dict[str, float]:
        """Return the mean of each loss."""
        return {name: (value / self.last).item() for name, value in self.total.items()}


def run(bench: Bench) -> None:
    scale = network(bench)["scale"]
    steps, last, patch = (12, 4, 8) if bench.tiny else (500, 50, 48)
    batches = photograph_batches(bench, 4 if bench.tiny else 50, 4, patch, scale)
    table = bench.table(f"Mean losses of steps {steps - last} to {steps}, joint, batch 4, LR {patch}")
    for precision in ("ieee", "bf16", "fp16", "tf32"):
        row: dict[str, Any] = {"precision": precision}
        table.rows.append(row)
        with bench.guard(row, *([f"quality.{precision}"] if precision != "ieee" else [])):
            losses = _Losses(steps, last)
            task = make_task("joint", network(bench), divergence={"weight": 0.0})
            trainer = make_trainer(bench, "joint", precision, callbacks=[losses])
            cycle = [batches[number % len(batches)] for number in range(steps)]
            trainer.fit(task, torch.utils.data.DataLoader(cycle, batch_size=None))
            row |= {name: value for name, value in losses.means().items() if name != "divergence"}
        _judge(bench, table.rows[0], row)


def _judge(bench: Bench, exact: dict[str, Any], row: dict[str, Any]) -> None:
    if row is exact or "fusion" not in row or "fusion" not in exact:
        return
    off = {key: abs(row[key] / exact[key] - 1) for key in ("reconstruction", "fusion")}
    detail = ", ".join(f"{key} {value:.2%} off" for key, value in off.items())
    bench.judge_at_full_size(f"quality.{row['precision']}", max(off.values()) < _WITHIN, detail)


PART = Part(
    "quality",
    70,
    {
        f"quality.{precision}": f"losses of {precision} within 2 % of IEEE float32 after 500 steps"
        for precision in PRECISIONS
        if precision != "ieee"
    },
    run,
)
