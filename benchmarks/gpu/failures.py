"""Failures of a training: losses that are not finite, and too little memory."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytorch_lightning as pl
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import MODES, make_task, make_trainer, network, random_batch, repeated
from benchmarks.gpu.commands import arguments, last_lines, start
from pytorch_lightning.callbacks import Callback

from d2csr.callbacks import nonfinite_guard
from d2csr.errors import TrainingError

_BAD = 3  # the batch that is spoiled
# Runs d2csr-train with little memory: on a GPU by torch's limit, on a CPU by that of the system.
_LIMITED = """
import resource, sys
if sys.argv.pop(1) == "cuda":
    import torch
    torch.cuda.set_per_process_memory_fraction(0.02)
else:
    import torch
    import d2csr.commands.train
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**9, used + 3 * 10**9))
from d2csr.commands.train import main
main()
"""
_TOO_LARGE = (
    "data.patch_size=48",
    "model.network.features=256",
    "data.batch_size={size}",
    "data.patches_per_image=512",
)


class _Poison(Callback):
    """Spoils one batch."""

    def on_train_batch_start(self, trainer: pl.Trainer, task: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == _BAD:
            batch["hr"] = batch["hr"] * math.nan


def run(bench: Bench) -> None:
    log = bench.folder / "memory.log"
    process = _start_too_large(bench, log)  # beside the others: it needs seconds for its imports
    try:
        _not_finite(bench)
        with bench.guard({}, "failures.memory"):
            _judge_memory(bench, process.wait(bench.patience(120)), log)
    finally:
        process.kill()


def _not_finite(bench: Bench) -> None:
    for precision in ("tf32", "fp16"):
        for mode in MODES:
            name = f"failures.nan.{mode}" + (".fp16" if precision == "fp16" else "")
            with bench.guard({}, name):
                bench.judge(name, *_raises(bench, mode, precision))
    for precision in ("tf32", "fp16"):
        name = "failures.nan.skip" + (".fp16" if precision == "fp16" else "")
        with bench.guard({}, name):
            bench.judge(name, *_skips(bench, precision))


def _train(bench: Bench, mode: str, precision: str, action: str) -> None:
    batch = random_batch(bench, 2, 8 if bench.tiny else 24, network(bench)["scale"])
    batches = [dict(batch) for _ in range(_BAD + 3)]
    task = make_task(mode, network(bench), divergence={"weight": 0.0})
    trainer = make_trainer(bench, mode, precision, callbacks=[_Poison()], on_nonfinite=action)
    loader = repeated(batch, 1)
    loader.dataset[:] = batches  # type: ignore[index]  # a list
    trainer.fit(task, loader)


def _raises(bench: Bench, mode: str, precision: str) -> tuple[bool, str]:
    try:
        _train(bench, mode, precision, "raise")
    except TrainingError as error:
        text = str(error)
        return f"batch {_BAD}: nan" in text and "trainer.on_nonfinite=skip" in text, text[:90]
    return False, "the training went on"


def _skips(bench: Bench, precision: str) -> tuple[bool, str]:
    with mock.patch.object(nonfinite_guard, "_log") as log:
        _train(bench, "joint", precision, "skip")
    skipped = log.warning.call_count
    return skipped == 1, f"{skipped} step skipped"


def _start_too_large(bench: Bench, log: Path) -> subprocess.Popen[bytes]:
    large = [text.format(size=512) for text in _TOO_LARGE]
    command = [sys.executable, "-c", _LIMITED, bench.device.type, *arguments(bench, bench.folder / "memory", *large)]
    return start(bench, command, log)


def _judge_memory(bench: Bench, status: int, log: Path) -> None:
    text = log.read_text(encoding="utf-8", errors="replace")
    advised = re.search(r"memory of \S+ is not enough.*Lower data.batch_size", text, re.DOTALL) is not None
    met = status != 0 and advised and "Traceback" not in text
    bench.judge("failures.memory", met, last_lines(log, 1)[:120])


PART = Part(
    "failures",
    45,
    {
        **{f"failures.nan.{mode}": f"a loss of NaN ends {mode} with advice, before the step" for mode in MODES},
        **{f"failures.nan.{mode}.fp16": f"the same under the scaler of fp16, {mode}" for mode in MODES},
        "failures.nan.skip": "on_nonfinite=skip takes the other steps",
        "failures.nan.skip.fp16": "the same under the scaler of fp16",
        "failures.memory": "too little memory ends with advice, a status other than 0, and no traceback",
    },
    run,
)
