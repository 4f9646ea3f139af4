"""Benchmark of the trainer's overhead: the time of ``d2csr-train`` on the demo outside of the training steps.

A step is forward, backward and Adam. The overhead is Lightning, data, loggers, progress bar and callbacks, between two
steps and, in addition, between two epochs of 126 steps. The first epoch is not counted, since it includes the start.

    python benchmarks/overhead.py
    python benchmarks/overhead.py optimization=alternating model.network.features=16     further settings of d2csr-train
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from d2csr.commands import train
from d2csr.training import AlternatingTask, JointTask

STEPS = 126


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--json", default="runs/bench/overhead.json", help="also write the numbers here ('': do not)")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    spans = _train(arguments.epochs, arguments.overrides)
    numbers = _numbers(spans)
    print(
        f"\nAn epoch of {STEPS} steps takes {numbers['epoch']:.2f} s, {numbers['share']:.1%} of it outside the steps: "
        f"{numbers['between_ms']:.2f} ms between two steps, {numbers['boundary_ms']:.0f} ms between two epochs."
    )
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), **numbers}, indent=2) + "\n")


def _train(epochs: int, overrides: list[str]) -> list[tuple[float, float]]:
    """Run the command; return the wall-clock start and end of each step."""
    spans: list[tuple[float, float]] = []
    # If Lightning steps the optimizer, it calls forward and backward there, as a closure.
    AlternatingTask.training_step = _timed(AlternatingTask.training_step, spans)
    JointTask.optimizer_step = _timed(JointTask.optimizer_step, spans)
    with tempfile.TemporaryDirectory() as folder:
        # 5 photographs × 202 patches are 126 batches of 8, and two dropped patches.
        epoch = [
            "data.patches_per_image=202",
            f"trainer.max_epochs={epochs + 1}",
            "trainer.check_val_every_n_epoch=1000",
        ]
        where = [f"hydra.run.dir={folder}", f"data.list_dir={folder}/pairs"]
        sys.argv = ["d2csr-train", "+experiment=demo", *epoch, *where, *overrides]
        train.main()
    return spans


def _timed(function: Any, spans: list[tuple[float, float]]) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        spans.append((start, time.perf_counter()))
        return result

    return wrapper


def _numbers(spans: list[tuple[float, float]]) -> dict[str, float]:
    spans = spans[STEPS - 1 :]  # from the end of the first epoch
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    boundaries, between = gaps[::STEPS], [gap for number, gap in enumerate(gaps) if number % STEPS]
    steps = [end - start for start, end in spans[1:]]
    wall = spans[-1][1] - spans[0][1]
    return {
        "epoch": wall / len(boundaries),
        "share": (wall - sum(steps)) / wall,
        "step_ms": 1e3 * statistics.median(steps),
        "between_ms": 1e3 * statistics.median(between),
        "boundary_ms": 1e3 * statistics.median(boundaries),
    }


if __name__ == "__main__":
    main()
