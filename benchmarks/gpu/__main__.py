"""Acceptance test and benchmark of d2csr on GPUs.

    PYTHONPATH=src python -m benchmarks.gpu                     on one GPU, in less than nine minutes
    PYTHONPATH=src python -m benchmarks.gpu --only golden steps    some parts
    PYTHONPATH=src python -m benchmarks.gpu --device cpu --tiny    the same code on a CPU, in a small size

From the top folder of a checkout, without installation. It needs torch, pytorch-lightning, torchmetrics, hydra-core,
omegaconf, pillow, platformdirs, filelock, tqdm and numpy, and no network. Each requirement is printed as passed, FAILED
or unmeasured. All results are written as JSON and Markdown, after each part. A part that fails, or takes too long, is
recorded, and the next one follows, in a new process if the part has ended the process or all use of the GPU in it. The
combinations of mode, precision and compilation use the time that the other parts leave; to measure all of them:
--only steps combinations --minutes 30. The exit status is 1 if a requirement is not met. With several GPUs it takes
longer.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for trainer.deterministic=true; before CUDA starts
# The profiler must not unload CUPTI: with CUDA graphs this can crash (torch/profiler/profiler.py does the same).
os.environ |= {"TEARDOWN_CUPTI": "0", "DISABLE_CUPTI_LAZY_REINIT": "1"}

import pytorch_lightning as pl
import torch
from benchmarks.gpu import (
    combinations,
    evaluation,
    failures,
    golden,
    images,
    loading,
    quality,
    resuming,
    several,
    steps,
    validation,
    waits,
)
from benchmarks.gpu.bench import FAILED, PASSED, UNMEASURED, Bench, Check, Part

# What matters most first, the risky last: a convolution of the largest image has maps of more than 2³¹ values.
PARTS = [
    *(module.PART for module in (golden, waits, validation, steps, resuming, evaluation, failures, several, quality)),
    *(module.PART for module in (combinations, loading, images)),
]
_SEVERAL_SECONDS = 400
_HANGING = 30  # seconds after the end of the time at which a process that hangs in a library is ended


def main() -> None:
    arguments = _arguments()
    if arguments.device == "cuda" and not arguments.supervised:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            # An empty cache, so that the first compilation is timed as such; kept if another process follows.
            os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}
            sys.exit(supervise(arguments))
    _quieten()
    chosen = [part for part in PARTS if not arguments.only or part.name in arguments.only]
    end = time.monotonic() + arguments.minutes * 60
    end += _SEVERAL_SECONDS if arguments.devices > 1 and several.PART in chosen else 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(torch.device(arguments.device), arguments.devices, arguments.tiny, Path(folder))
        if bench.cuda:
            faulthandler.dump_traceback_later(max(end - time.monotonic(), 0) + _HANGING, exit=True)
        bench.checks = {name: Check(name, text) for part in chosen for name, text in part.checks.items()}
        if arguments.after:
            bench.load(json.loads(Path(arguments.after).read_text(encoding="utf-8")))
        rest = _run(bench, chosen, end, arguments.output)
    if rest:
        _continue(rest, end - time.monotonic(), arguments)
    _print(bench)
    print(f"{bench.seconds()} s. Tables: {arguments.output}.md and .json")
    sys.exit(1 if bench.failed() else 0)


def _run(bench: Bench, chosen: list[Part], end: float, output: str) -> list[Part]:
    """Run parts, and write the results after each; return those that need a new process."""
    about = _about(bench)
    _write(bench, about, output)
    for number, part in enumerate(chosen):
        print(f"{part.name} … ", end="", flush=True)
        bench.run(part, _seconds(part, chosen[number + 1 :], end - time.monotonic(), bench))
        print(f"{bench.parts[part.name]['seconds']} s, {bench.parts[part.name]['outcome']}", flush=True)
        _write(bench, {**about, "seconds": bench.seconds()}, output)
        if bench.lost:
            return chosen[number + 1 :]
    return []


def _seconds(part: Part, later: list[Part], left: float, bench: Bench) -> float:
    """Return the time budget of a part: its own, all that the later ones leave, or what is left."""
    if not bench.cuda:
        return 1200
    if part is several.PART and bench.devices > 1:
        return _SEVERAL_SECONDS
    if part is combinations.PART or not later:
        return left - sum(other.seconds for other in later)
    return min(part.seconds, left)


def _continue(rest: list[Part], seconds: float, arguments: argparse.Namespace) -> None:
    """Replace this process by one that runs the rest of the parts."""
    names = [part.name for part in rest]
    print(f"The GPU is of no more use to this process; a new one follows with {', '.join(names)}.", flush=True)
    given = _given(arguments, names, seconds, after=True)
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *given])


def supervise(arguments: argparse.Namespace, command: Sequence[str] = ("-m", "benchmarks.gpu")) -> int:
    """Run the parts in another process, and those after a crash in a further one; return the last status."""
    names = [part.name for part in PARTS if not arguments.only or part.name in arguments.only]
    end, path, crashed = time.monotonic() + arguments.minutes * 60, Path(f"{arguments.output}.json"), False
    path.unlink(missing_ok=True)
    while True:
        given = _given(arguments, names, end - time.monotonic(), after=crashed)
        status = subprocess.call([sys.executable, *command, *given])
        if status >= 0 or not path.is_file():
            return abs(status)
        content = json.loads(path.read_text(encoding="utf-8"))
        ended = next((name for name in names if name not in content["parts"]), None)
        if ended is None:
            return 1
        print(f"\nThe process ended with signal {-status} in the part {ended}.", flush=True)
        _note_crash(content, ended, f"the process ended with signal {-status}")
        path.write_text(json.dumps(content), encoding="utf-8")
        crashed, names = True, names[names.index(ended) + 1 :]
        if not names:
            return 1


def _note_crash(content: dict[str, Any], part: str, reason: str) -> None:
    """Record in the results that a part has ended the process."""
    content["parts"][part] = {"seconds": 0, "outcome": reason}
    for check in content["checks"]:
        if check["name"].startswith(f"{part}.") and check["status"] == UNMEASURED:
            check |= {"status": FAILED, "detail": f"not reached: {reason}"}


def _given(arguments: argparse.Namespace, names: Sequence[str], seconds: float, *, after: bool) -> list[str]:
    """Return the arguments of another process for these parts."""
    given = ["--supervised", "--device", arguments.device, "--devices", str(arguments.devices)]
    given += ["--output", arguments.output, "--only", *names, "--minutes", str(seconds / 60)]
    return [
        *given,
        *(["--tiny"] if arguments.tiny else []),
        *(["--after", f"{arguments.output}.json"] if after else []),
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--devices", type=int, help="GPUs, or processes on a CPU (default: all GPUs, one process)")
    parser.add_argument("--tiny", action="store_true", help="small networks, images and numbers of steps")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts")
    parser.add_argument("--minutes", type=float, default=8.4, help="for all parts together on a GPU (default: 8.4)")
    parser.add_argument("--output", default="runs/bench/gpu", help="path of the results, without suffix")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)  # by another process
    parser.add_argument("--after", help=argparse.SUPPRESS)  # the results of parts that ran in another process
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("CUDA is not available here; --device cpu --tiny runs the same code on a CPU.")
    arguments.devices = arguments.devices or (torch.cuda.device_count() if arguments.device == "cuda" else 1)
    if 4 % arguments.devices:
        arguments.devices = 4 if arguments.devices > 4 else 2
    return arguments


def _about(bench: Bench) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if bench.cuda else platform.processor() or platform.machine()
    cuda = {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()} if bench.cuda else {}
    size = "tiny" if bench.tiny else "full size"
    versions = {"torch": torch.__version__, "Lightning": pl.__version__, "Python": platform.python_version()}
    compiler = next(
        (found for found in ("cc", "gcc", "clang") if shutil.which(found)), "none"
    )  # torch.compile needs one
    machine = {"cores": os.cpu_count(), "C compiler": compiler}
    return {"device": f"{bench.devices} × {name}", **cuda, **versions, **machine, "size": size}


def _write(bench: Bench, about: dict[str, Any], output: str) -> None:
    """Write what is there so far: a later part may end the process."""
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(bench.as_json(about), encoding="utf-8")
    Path(f"{path}.md").write_text(bench.as_markdown(about), encoding="utf-8")


def _print(bench: Bench) -> None:
    print()
    for check in bench.checks.values():
        print(f"{check.status:<11}{check.name:<32}{check.detail}")
    count = {
        kind: sum(check.status == kind for check in bench.checks.values()) for kind in (PASSED, FAILED, UNMEASURED)
    }
    print("\n" + ", ".join(f"{number} {kind}" for kind, number in count.items()))


def _quieten() -> None:
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "d2csr"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch)\..*")


if __name__ == "__main__":
    main()
