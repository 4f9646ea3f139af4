"""Host synchronisations in training steps between two rows of the log."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import MODES, make_task, make_trainer, network, random_batch
from pytorch_lightning.callbacks import Callback

from d2csr.callbacks import LastCheckpoint, TrainingLog
from d2csr.loggers import CSVLogger

_EVERY = 8  # steps from one row of the log to the next
_STEPS = range(2, 7)  # those that are watched, after the first row and before the second


class _Watch(Callback):
    """Lets CUDA warn of each operation that waits for the device, from one step to another, and between the steps."""

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, batch_idx: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn" if batch_idx % _EVERY in _STEPS else "default")


def run(bench: Bench) -> None:
    table = bench.table("Host synchronisations between two rows of the log")
    for window in (False, True):
        for mode in MODES:
            row: dict[str, Any] = {"mode": mode, "divergence loss": "on" if window else "off"}
            table.rows.append(row)
            name = f"waits.{mode}.{'on' if window else 'off'}"
            with bench.guard(row, name):
                places = _count(bench, mode, window)
                row |= {"synchronisations": len(places), "places": ", ".join(sorted(set(places))) or None}
                bench.judge_on_gpu(name, not places, f"{len(places)} in {len(_STEPS)} steps")


def _count(bench: Bench, mode: str, window: bool) -> list[str]:
    """Train with guard, clipping, average of the weights and logging; return the places that waited."""
    weight = {"weight": 2e-5 if window else 0.0, "after": -1}
    task = make_task(mode, network(bench), divergence=weight, ema_decay=0.999)
    batch = random_batch(bench, 2, 8 if bench.tiny else 48, network(bench)["scale"])
    logger = CSVLogger(str(bench.folder), name="waits", version=f"{mode}-{window}")
    trainer = make_trainer(
        bench,
        mode,
        "bf16",
        callbacks=[TrainingLog(), LastCheckpoint(bench.folder / "waits"), _Watch()],  # it keeps the random states
        logger=logger,
        enable_checkpointing=True,
        log_every_n_steps=_EVERY,
        gradient_clip_val=1.0,
        max_epochs=1 if mode != "sequential" else 2,
    )
    # In pinned memory, as the workers' batches are: a copy from other memory waits.
    host = {name: value.cpu() for name, value in batch.items()}
    host = {name: value.pin_memory() if bench.cuda else value for name, value in host.items()}
    loader = torch.utils.data.DataLoader([host] * _EVERY, batch_size=None)
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        try:
            trainer.fit(task, loader)
        finally:
            if bench.cuda:
                torch.cuda.set_sync_debug_mode("default")
    found = [warning for warning in met if re.search("synchronizing CUDA", str(warning.message))]
    return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in found]


PART = Part(
    "waits",
    35,
    {
        f"waits.{mode}.{window}": f"no synchronisation between two rows of the log: {mode}, divergence loss {window}, "
        "with guard, clipping, EMA and logging"
        for mode in MODES
        for window in ("off", "on")
    },
    run,
)
