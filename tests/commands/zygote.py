"""Fast start of ``d2csr-train`` in new processes, forked from one that has imported torch.

Reads a JSON object a line: ``start`` forks a process that calls the entry point with these arguments, after ``patch``,
Python code, and answers with its id; ``wait`` answers with the exit status of an id, negative if a signal ended it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import PIL.PngImagePlugin  # noqa: F401
import tensorboard  # noqa: F401
import torchmetrics  # noqa: F401

import d2csr.data.datamodule
import d2csr.training.fit  # noqa: F401
from d2csr.callbacks import TrainingCurves
from d2csr.commands import train

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked_command import call_and_exit
from shared_pairs import share_demo_pairs

share_demo_pairs()
TrainingCurves.on_fit_end = lambda *_: None  # takes two seconds at the end of a training


def start(arguments: list[str], folder: str, log: str, patch: str) -> int:
    pid = os.fork()
    if pid:
        return pid

    def entry_point() -> None:
        os.chdir(folder)
        with Path(log).open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["d2csr-train", *arguments]
        exec(patch, {})
        train.main()

    call_and_exit(entry_point)


def answer(request: dict[str, Any]) -> int:
    if "wait" in request:
        return os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
    return start(request["start"], request["folder"], request["log"], request["patch"])


if __name__ == "__main__":
    gc.freeze()  # the collector of a forked process need not copy these objects
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)
