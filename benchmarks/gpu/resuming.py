"""A training that is killed and resumed: the same weights, and the same speed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import Chronometer, make_data, make_pairs, make_task, make_trainer, network
from benchmarks.gpu.commands import arguments, last_lines, start, train_command, wait_for

from d2csr.callbacks import LastCheckpoint
from d2csr.training.fit import train

_SECONDS = 120
_SLOWER = 1.15


def run(bench: Bench) -> None:
    with bench.guard({}, "resuming.bits"):
        _bits(bench)
    with bench.guard({}, "resuming.speed"):
        _speed(bench)


def _bits(bench: Bench) -> None:
    """Compare the weights of an uninterrupted training with those of one that is killed and resumed."""
    steps = 24 if bench.tiny else 60
    settings = ("trainer.deterministic=true", f"trainer.max_steps={steps}", "checkpoint.every_n_steps=10")
    whole, killed = bench.folder / "whole", bench.folder / "killed"
    logs = [bench.folder / f"{name}.log" for name in ("whole", "killed", "resumed")]
    first = start(bench, train_command(*arguments(bench, whole, *settings)), logs[0])
    broken = start(bench, train_command(*arguments(bench, killed, *settings)), logs[1])
    started = [first, broken]
    last = killed / "checkpoints" / "last.ckpt"
    try:
        wait_for(last, broken, logs[1], bench.patience(_SECONDS))
        os.killpg(broken.pid, signal.SIGKILL)
        broken.wait()
        reached = torch.load(last, weights_only=True)["global_step"]
        resumed = start(bench, train_command(*arguments(bench, killed, *settings, f"resume={killed}")), logs[2])
        started.append(resumed)
        for process, log in ((first, logs[0]), (resumed, logs[2])):
            if process.wait(bench.patience(_SECONDS)) != 0:
                raise RuntimeError(f"{log.stem}: {last_lines(log)}")
    finally:
        for process in started:
            process.kill()
    same = _same_weights(whole, killed)
    where = f"killed after the checkpoint of step {reached}, {steps} steps"
    bench.judge("resuming.bits", same and reached < steps, f"{where}: {'equal' if same else 'not equal'}")


def _same_weights(first: Path, second: Path) -> bool:
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (first, second))
    weights, others = one["state_dict"], other["state_dict"]
    return one["global_step"] == other["global_step"] and all(
        torch.equal(w, others[name]) for name, w in weights.items()
    )


def _speed(bench: Bench) -> None:
    """Compare the time of a step before and after a resume."""
    table = bench.table("Training before and after a resume, joint, bf16")
    scale, steps = network(bench)["scale"], 6 if bench.tiny else 60
    listed = make_pairs(bench, 4 if bench.tiny else 24, (24, 30) if bench.tiny else (300, 400), scale)
    run_dir = bench.folder / "resumed-speed"
    found = []
    for resume in (None, run_dir):
        chronometer = Chronometer(bench, 3, steps, 10)
        data = make_data(bench, listed, scale, patch_size=8 if bench.tiny else 96, patches_per_image=steps)
        trainer = make_trainer(
            bench,
            "joint",
            "bf16",
            callbacks=[chronometer, LastCheckpoint(run_dir / "checkpoints")],
            enable_checkpointing=True,
            max_epochs=10,
            limit_val_batches=0,
            default_root_dir=str(run_dir),
        )
        train(make_task("joint", network(bench)), data, trainer, run_dir=run_dir, resume=resume)
        row: dict[str, Any] = {"training": "resumed" if resume else "first", "ms a step": 1e3 * chronometer.seconds}
        table.rows.append({**row, "MB": chronometer.peak, "steps": chronometer.steps})
        found.append(chronometer.seconds)
    ratio = found[1] / found[0]
    bench.judge_at_full_size("resuming.speed", ratio < _SLOWER, f"a step takes {ratio:.2f} times as long")


PART = Part(
    "resuming",
    60,
    {
        "resuming.bits": "kill -9 and resume give the same bits as no interruption, with trainer.deterministic=true",
        "resuming.speed": "steps a second after a resume as before, within 15 %",
    },
    run,
)
