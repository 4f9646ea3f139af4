"""Fixtures that load hostile files in a process with limits on memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for generators.py

MEMORY = 2**30  # bytes beside what Python with torch takes
SECONDS = 10  # for one file

# Reads the names of files, and prints a line of JSON for each: the kind of error and its message.
CHILD = """
import json, resource, signal, sys, time
import torch
from d2csr.checkpoints import load_model
from d2csr.checkpoints.own import read_training_state
from d2csr.models import D2CSR
torch.set_num_threads(1)
D2CSR(2, 16, [2], 4)
read = {"load": load_model, "resume": read_training_state}[sys.argv[1]]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
for path in sys.stdin.read().split("\\n"):
    signal.alarm(int(sys.argv[3]))
    start = time.monotonic()
    try:
        read(path)
        result = ["loaded", ""]
    except BaseException as error:
        result = [type(error).__name__, str(error)]
    signal.alarm(0)
    print(json.dumps([path, *result, time.monotonic() - start]), flush=True)
"""

Outcomes = dict[str, tuple[str, str]]


@pytest.fixture
def load_limited(python: str, tmp_path: Path) -> Callable[..., Outcomes]:
    """Load every file in one child process; return the name of the error and its message for each."""

    def load(files: dict[str, bytes], how: str = "load") -> Outcomes:
        names = {}
        for number, (name, data) in enumerate(files.items()):
            path = tmp_path / f"{number}.ckpt"
            path.write_bytes(data)
            names[str(path)] = name
        command = [python, "-c", CHILD, how, str(MEMORY), str(SECONDS)]
        child = subprocess.run(
            command, input="\n".join(names), capture_output=True, text=True, timeout=600, check=False
        )
        lines: list[list[Any]] = [json.loads(line) for line in child.stdout.splitlines()]
        after = "the first file" if not lines else names[lines[-1][0]]
        assert child.returncode == 0, f"ended with {child.returncode} after {after!r}: {child.stderr[-500:]}"
        return {names[path]: (error, message) for path, error, message, _ in lines}

    return load
