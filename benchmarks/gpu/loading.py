"""The loader beside a training step: samples a second of both, and the share of the time in which the GPU waits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import make_data, make_pairs, make_task, make_trainer, network
from pytorch_lightning.callbacks import Callback

_WORKERS = (4, 8, 16)
_IDLE_MS = 20.0
# Steps at the end of an epoch, when the workers are no longer ahead. A step has some thousand kernels and launches, of
# which the profiler makes Python objects afterwards, in 50 µs each.
_PROFILED = 12


class _Epochs(Callback):
    """Keeps the first batch, and when each batch starts and ends on the host.

    On a GPU it profiles the end of the second epoch.
    """

    def __init__(self, bench: Bench, batch_size: int) -> None:
        self.bench, self.batch_size = bench, batch_size
        self.batch: dict[str, torch.Tensor] = {}
        self.spans: list[list[tuple[float, float]]] = []
        self.busy: float | None = None
        self.wall = 0.0
        self._profiler: Any = None

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.spans.append([])
        self._first = max(0, int(trainer.num_training_batches) - _PROFILED) if trainer.current_epoch == 1 else None

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: Any, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        self.batch = self.batch or {name: value.clone() for name, value in batch.items()}
        if batch_idx == self._first and self.bench.cuda:
            torch.cuda.synchronize()
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self._profiler.__enter__()
            self._since = time.perf_counter()
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.spans[-1].append((self._start, time.perf_counter()))

    def on_train_epoch_end(self, *_: Any) -> None:
        if self._profiler is not None:
            torch.cuda.synchronize()
            self.wall = time.perf_counter() - self._since
            self._profiler.__exit__(None, None, None)
            self.busy = _busy(self._profiler)
            self._profiler = None

    def samples_per_second(self) -> float:
        """Return the rate of the last epoch, without its first batch."""
        last = self.spans[-1]
        return self.batch_size * (len(last) - 1) / (last[-1][1] - last[0][1])

    def idle_ms(self) -> float:
        """Return the longest time from the last batch of an epoch to the first one of the next, without profiling."""
        pairs = [(a, b) for a, b in zip(self.spans[2:], self.spans[3:], strict=False)]
        return max(1e3 * (after[0][0] - before[-1][1]) for before, after in pairs)


def _busy(profiler: Any) -> float:
    """Return the seconds in which at least one kernel or copy ran on the GPU."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    )
    total, end = 0.0, 0.0
    for start, stop in spans:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e6


def run(bench: Bench) -> None:
    scale, batch_size = network(bench)["scale"], 2 if bench.tiny else 4
    listed = make_pairs(bench, 4 if bench.tiny else 24, (24, 30) if bench.tiny else (300, 400), scale)
    patch = 8 if bench.tiny else 96
    table = bench.table(f"Training data, LR {patch}, batch {batch_size}, cache on disk; joint, bf16")
    batches: dict[str, dict[str, torch.Tensor]] = {}
    try:
        _measure(bench, listed, scale, {"batch_size": batch_size, "patch_size": patch}, table.rows, batches)
    finally:
        _judge(bench, table.rows)
        if len(batches) == 2:
            disk, device = batches.values()
            same = disk.keys() == device.keys() and all(
                torch.equal(value, device[name]) for name, value in disk.items()
            )
            bench.judge("loading.same_batch", same, "equal" if same else "not equal")


def _measure(
    bench: Bench,
    listed: Path,
    scale: int,
    sizes: dict[str, Any],
    rows: list[dict[str, Any]],
    batches: dict[str, dict[str, torch.Tensor]],
) -> None:
    """Measure each cache and number of workers, and keep the first batch of each cache."""
    for cache, workers in [*(("disk", n) for n in ((0, 1) if bench.tiny else _WORKERS)), ("device", 0)]:
        row: dict[str, Any] = {"cache": cache, "workers": workers}
        rows.append(row)
        settings = {**sizes, "cache": cache, "num_workers": workers}
        with bench.guard(row):
            if cache != "device":  # which cuts patches on the device of a training
                row["samples/s of the loader alone"] = _alone(bench, listed, scale, settings)
            batches.setdefault(cache, _beside(bench, listed, scale, settings, row))


def _alone(bench: Bench, listed: Path, scale: int, settings: dict[str, Any]) -> float:
    """Return the samples a second that the loader gives if nothing else happens."""
    data = make_data(bench, listed, scale, **settings, patches_per_image=4 if bench.tiny else 100)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    for _ in range(max(1, 2 * settings["num_workers"])):
        next(batches)
    start, count, limit = time.perf_counter(), 0, 0.5 if bench.tiny else 2.0
    for batch in batches:
        count += len(batch["lr"])
        if time.perf_counter() - start > limit:
            break
    return count / (time.perf_counter() - start)


def _beside(
    bench: Bench, listed: Path, scale: int, settings: dict[str, Any], row: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Train four epochs, of which the end of the second one is profiled; return the first batch."""
    data = make_data(bench, listed, scale, **settings, patches_per_image=1 if bench.tiny else 6)
    epochs = _Epochs(bench, settings["batch_size"])
    task = make_task("joint", network(bench), divergence={"weight": 0.0})
    trainer = make_trainer(bench, "joint", "bf16", max_epochs=4, callbacks=[epochs], limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    row["samples/s of the training"] = epochs.samples_per_second()
    row["GPU waits"] = 1 - epochs.busy / epochs.wall if epochs.busy is not None else None
    row["idle between epochs, ms"] = epochs.idle_ms()
    return epochs.batch


def _judge(bench: Bench, rows: list[dict[str, Any]]) -> None:
    fed = [row for row in rows if row.get("samples/s of the training") and row["cache"] == "disk"]
    if not fed:
        return
    enough = [r for r in fed if r["samples/s of the loader alone"] >= r["samples/s of the training"]]
    names = ("workers", "samples/s of the loader alone", "samples/s of the training")
    shown = "; ".join("{} workers: {:.0f} given, {:.0f} used".format(*(row[name] for name in names)) for row in fed)
    bench.judge_at_full_size("loading.rate", bool(enough), shown)
    waits = [row for row in fed if row.get("GPU waits") is not None]
    if waits:
        bench.judge("loading.gpu_waits", True, "; ".join(f"{r['workers']}: {r['GPU waits']:.0%}" for r in waits))
    else:
        bench.skip("loading.gpu_waits", "needs the profiler of a GPU")
    four = next((row for row in fed if row["workers"] == 4), fed[-1])
    idle = four["idle between epochs, ms"]
    bench.judge_at_full_size("loading.idle", idle < _IDLE_MS, f"{idle:.1f} ms with {four['workers']} workers")
    stored = next((row for row in rows if row["cache"] == "device"), {})
    if "idle between epochs, ms" in stored:
        bench.judge("loading.device_cache", True, f"{stored['samples/s of the training']:.0f} samples/s")
    else:
        bench.skip("loading.device_cache", str(stored.get("note")))


PART = Part(
    "loading",
    50,
    {
        "loading.rate": "4, 8 or 16 workers give at least the samples that the step uses",
        "loading.gpu_waits": "share of the time in which no kernel runs, by the profiler; no bound",
        "loading.idle": "less than 20 ms between two epochs, with 4 workers",
        "loading.device_cache": "a training from data.cache=device; no bound",
        "loading.same_batch": "the first batch of data.cache=device is that of disk, bit for bit",
    },
    run,
)
