"""Benchmark of the commands outside of their work: imports, preparation before the first step, and the way to the exit.

The demo is trained for one epoch, in the second run from a warm cache, and its checkpoint is evaluated. Processor time
depends less on other processes than wall-clock time; that of loader workers is included in the total.

    python benchmarks/startup.py
    python benchmarks/startup.py --repeats 5 data.cache=device     further settings of d2csr-train
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MARKS = "startup-marks "
Point = tuple[float, float]  # seconds of wall-clock time and of processor time

# The modules that each command imports, to see the imports apart from what follows.
MODULES = {
    "train": (
        "d2csr.training.build",
        "d2csr.training.fit",
        "d2csr.callbacks",
        "d2csr.loggers",
        "d2csr.demo.demo_pairs",
    ),
    "eval": ("d2csr.html_report", "d2csr.evaluation", "d2csr.callbacks", "d2csr.data.datamodule"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", default="runs/bench/startup.json", help="also write the numbers here ('': do not)")
    parser.add_argument("--marked", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if arguments.marked:
        _run_marked(*arguments.marked)
        return
    with tempfile.TemporaryDirectory() as folder:
        short = ["trainer.max_epochs=1", "data.patches_per_image=16", "trainer.enable_progress_bar=false"]
        common = ["+experiment=demo", f"data.list_dir={folder}/pairs", f"data.cache_dir={folder}/cache", *short]
        train = ["train", *common, f"hydra.run.dir={folder}/run", *arguments.overrides]
        evaluate = ["eval", f"ckpt={folder}/run", f"hydra.run.dir={folder}/eval", "trainer.enable_progress_bar=false"]
        _measure(train)  # writes the pairs and fills the cache
        rows = [
            {**_training_rows(_measure(train)), **_evaluation_rows(_measure(evaluate))}
            for _ in range(arguments.repeats)
        ]
    table = {name: [statistics.median(row[name][kind] for row in rows) for kind in (0, 1)] for name in rows[0]}
    print(f"\n{'':<44}{'wall, s':>9}{'CPU, s':>9}")
    for name, (wall, cpu) in table.items():
        print(f"{name:<44}{wall:>9.2f}{cpu:>9.2f}")
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), "rows": rows}, indent=2) + "\n")


def _measure(command: list[str]) -> dict[str, Point]:
    """Run a command; return wall-clock and processor time since its start at each mark, and at its exit."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.time()
    arguments = [sys.executable, __file__, "--marked", str(start), *command]
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "COLUMNS": "100"}
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    line = next(line for line in done.stdout.splitlines() if line.startswith(MARKS))
    return {**json.loads(line.removeprefix(MARKS)), "exit": (time.time() - start, cpu)}


def _training_rows(at: dict[str, Point]) -> dict[str, Point]:
    return {
        "d2csr-train: imports": at["imports"],
        "d2csr-train: imports to first step": _between(at["imports"], at["first"]),
        "d2csr-train: last step to exit": _between(at["last"], at["exit"]),
    }


def _evaluation_rows(at: dict[str, Point]) -> dict[str, Point]:
    return {
        "d2csr-eval: imports": at["imports"],
        "d2csr-eval: forward passes": at["forward"],
        "d2csr-eval: all but imports and forward passes": _between(at["forward"], _between(at["imports"], at["exit"])),
    }


def _between(start: Point, end: Point) -> Point:
    return end[0] - start[0], end[1] - start[1]


def _run_marked(start: str, command: str, *overrides: str) -> None:
    """Run a command in this process, and print the marks: times since the start, and the sum of the forward passes."""
    marks: dict[str, Point] = {}
    import importlib

    module = importlib.import_module(f"d2csr.commands.{command}")
    from d2csr.commands.heavy_imports import import_heavy

    for name in MODULES[command]:
        import_heavy(name)  # as the command does
    from d2csr.inference import Inference
    from d2csr.training import AlternatingTask, JointTask

    def now() -> Point:
        return time.time() - float(start), time.process_time()

    def marked(function: Any, total: str | None = None) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            before = now()
            marks.setdefault("first", before)
            result = function(*args, **kwargs)
            marks["last"] = now()
            if total is not None:
                spent = _between(before, marks["last"])
                marks[total] = (marks.get(total, (0, 0))[0] + spent[0], marks.get(total, (0, 0))[1] + spent[1])
            return result

        return wrapper

    marks["imports"] = now()
    if command == "train":
        AlternatingTask.training_step = marked(AlternatingTask.training_step)
        JointTask.optimizer_step = marked(JointTask.optimizer_step)
    else:
        Inference.outputs = marked(Inference.outputs, total="forward")
    sys.argv[1:] = overrides
    try:
        module.main()
    finally:
        print(f"\n{MARKS}{json.dumps(marks)}", flush=True)


if __name__ == "__main__":
    main()
