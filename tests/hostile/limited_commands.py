"""Runs commands in processes with limits, without the seconds that importing torch takes each time.

Reads a JSON object a line, ``{"command": "eval", "arguments": […], "folder": …, "memory": …, "seconds": …}``. It forks
a process with at most ``memory`` bytes more than now, 128 open files and ``seconds`` of time, which calls the entry
point. It answers with the exit status (negative: ended by a signal, -9 for the time), the seconds, and the output.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import PIL.PngImagePlugin  # noqa: F401
import torch
import torchmetrics  # noqa: F401

import d2csr.data.datamodule
import d2csr.evaluation
import d2csr.training.fit
import d2csr.upscaling.upscale_task  # noqa: F401
from d2csr.models import D2CSR

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked_command import call_and_exit

_MODULES = {"lists": "make_lists"}


def command(name: str, arguments: list[str]) -> None:
    sys.argv = [f"d2csr-{name}", *arguments]
    importlib.import_module(f"d2csr.commands.{_MODULES.get(name, name)}").main()


def limited(request: dict[str, Any], output: IO[bytes]) -> None:
    """Call the entry point under the limits, and end the process."""

    def entry_point() -> None:
        os.setpgid(0, 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        os.chdir(request["folder"])
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + request["memory"],) * 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        command(request["command"], request["arguments"])

    call_and_exit(entry_point)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        if (pid := os.fork()) == 0:
            limited(request, output)
        status, end = None, start + request["seconds"]
        while status is None:
            done, state = os.waitpid(pid, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(state)
            elif time.monotonic() > end:
                os.killpg(pid, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            else:
                time.sleep(0.01)
        output.seek(0)
        text = output.read(10**6).decode(errors="replace")
    return {"status": status, "seconds": time.monotonic() - start, "output": text}


if __name__ == "__main__":
    torch.set_num_threads(1)
    D2CSR(2, 16, [2], 4)
    gc.freeze()  # the collector of a forked process need not copy these objects
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
