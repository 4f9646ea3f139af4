"""Validation in a training: time, memory, compilation."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytorch_lightning as pl
import torch
from benchmarks.gpu.bench import Bench, Part, synchronize
from benchmarks.gpu.build import (
    compiler,
    graphs,
    make_data,
    make_pairs,
    make_task,
    make_trainer,
    network,
    random_batch,
    time_steps,
)
from pytorch_lightning.callbacks import Callback

from d2csr.data.datamodule import PairDataModule

_VALIDATIONS = 5
_COMPARED = 3  # the last ones: the allocator's segments have settled by then
# At the paper's settings: 20 epochs of 125 steps from one validation on 100 images to the next.
_STEPS, _IMAGES, _SHARE = 2500, 100, 0.05


class _Watch(Callback):
    """Notes time, memory and compiled graphs of each validation, and the time of training steps.

    The first step compiles, in this part without the cache of an earlier compilation.
    """

    def __init__(self, bench: Bench, images: int) -> None:
        self.bench, self.images = bench, images
        self.rows: list[dict[str, Any]] = []
        self.step = self.first = 0.0
        self._before = graphs()

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        synchronize(self.bench.device)
        self._start, self._first = time.perf_counter(), trainer.global_step

    def on_train_batch_end(self, *_: Any) -> None:
        if not self.first:
            synchronize(self.bench.device)
            self.first = time.perf_counter() - self._start

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        synchronize(self.bench.device)
        now = time.perf_counter()
        self.step = (now - self._start) / max(1, trainer.global_step - self._first)
        self._graphs, self._start = graphs(), now

    def on_validation_end(self, *_: Any) -> None:
        synchronize(self.bench.device)
        row = {
            "s an image": (time.perf_counter() - self._start) / self.images,
            "graphs compiled": graphs() - self._graphs,
        }
        if self.bench.cuda:
            gc.collect()  # what waits for the collector would be counted in one validation and not in another
            row["MB allocated"] = torch.cuda.memory_allocated() / 1e6
            row["MB reserved"] = torch.cuda.memory_reserved() / 1e6
        self.rows.append({"validation": len(self.rows) + 1, **row, "graphs so far": graphs() - self._before})


def run(bench: Bench) -> None:
    scale, images = network(bench)["scale"], 3
    listed = make_pairs(bench, images, (24, 30) if bench.tiny else (300, 400), scale)
    data = make_data(
        bench,
        listed,
        scale,
        batch_size=1 if bench.tiny else 4,
        patch_size=8 if bench.tiny else 96,
        patches_per_image=1 if bench.tiny else 40,
    )
    step = 0.0
    with bench.guard({}, "validation.share"):
        step = _official_step(bench)
    with bench.guard({}, "validation.compilation"):
        _train(bench, data, images, "reduce-overhead", step)
        return
    _train(bench, data, images, None, step)  # the compilation has failed


def _official_step(bench: Bench) -> float:
    """Return the seconds of a step with the paper's settings: alternating, in float32, not compiled."""
    size, patch = (1, 8) if bench.tiny else (4, 96)
    batch = random_batch(bench, size, patch, network(bench)["scale"])
    return time_steps(bench, "alternating", "tf32", batch, steps=2 if bench.tiny else 10, at_most=1.5).seconds


def _train(bench: Bench, data: PairDataModule, images: int, compile: str | None, official_step: float) -> None:
    """Train and validate, and judge what was found, also if the time runs out."""
    kind = "an eager training" if compile is None else "a compiled training"
    table = bench.table(f"Validation of {images} images in {kind}, bf16")
    watch = _Watch(bench, images)
    with compiler(bench):
        task = make_task("joint", network(bench), compile=compile, divergence={"weight": 0.0})
        trainer = make_trainer(
            bench,
            "joint",
            "bf16",
            max_epochs=_VALIDATIONS,
            callbacks=[watch],
            check_val_every_n_epoch=1,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(task, datamodule=data)
        finally:
            table.rows += watch.rows
            if compile is not None:
                _judge_compilation(bench, watch)
            _judge(bench, watch, official_step)


def _judge_compilation(bench: Bench, watch: _Watch) -> None:
    if len(watch.rows) < 3:
        return
    first, last = watch.rows[0]["graphs so far"], watch.rows[-1]["graphs so far"]
    inside = sum(row["graphs compiled"] for row in watch.rows)
    found = f"{inside} graphs in validations, {last - first} after the first, {first} before"
    detail = f"{found}; first step {watch.first:.0f} s"
    bench.judge("validation.compilation", inside == last - first == 0 < first, detail)


def _judge(bench: Bench, watch: _Watch, official_step: float) -> None:
    if len(watch.rows) < _COMPARED:
        return
    seconds = watch.rows[-1]["s an image"]
    if official_step:
        share, own = (_IMAGES * seconds / (_STEPS * step + _IMAGES * seconds) for step in (official_step, watch.step))
        detail = f"{share:.1%}: {seconds:.3f} s an image, step {official_step:.4f} s in alternating, TF32"
        detail += f"; {own:.1%} of the training that was validated, step {watch.step:.4f} s"
        bench.judge_at_full_size("validation.share", share < _SHARE, detail)
    if not bench.cuda:
        bench.skip("validation.memory", "needs a GPU")
        return
    kept = watch.rows[-_COMPARED:]
    growth = {
        key: max(row[key] for row in kept) - min(row[key] for row in kept) for key in ("MB allocated", "MB reserved")
    }
    shown = ", ".join(f"{key} changes by {value:.1f}" for key, value in growth.items())
    bench.judge("validation.memory", growth["MB allocated"] < 1 and growth["MB reserved"] == 0, shown)


PART = Part(
    "validation",
    115,
    {
        "validation.memory": "allocated and reserved memory do not grow over the last three of five validations",
        "validation.compilation": "nothing is compiled in a validation, or after the first one",
        "validation.share": "less than 5 % of a training at the paper's settings (alternating, float32, not compiled); "
        "seconds an image",
    },
    run,
)
