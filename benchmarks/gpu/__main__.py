"""Acceptance test and benchmark of d2csr on GPUs.

    PYTHONPATH=src python -m benchmarks.gpu                     on one GPU, in less than nine minutes
    PYTHONPATH=src python -m benchmarks.gpu --only golden steps    some parts
    PYTHONPATH=src python -m benchmarks.gpu --device cpu --tiny    the same code on a CPU, in a small size

From the top folder of a checkout, without installation. It needs torch, pytorch-lightning, torchmetrics, hydra-core,
omegaconf, pillow, platformdirs, filelock, tqdm and numpy, and no network. Each requirement is printed as passed, FAILED
or unmeasured. All figures are written as JSON and Markdown, after each part. A part that fails, or takes too long, is
recorded, and the next one follows. The training steps come last, and use the time that is left; to measure all of
them: --only steps --minutes 30. The exit status is 1 if a requirement is not met. With several GPUs it takes longer.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for trainer.deterministic=true; before CUDA starts

import pytorch_lightning as pl
import torch
from benchmarks.gpu import (
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
from benchmarks.gpu.bench import FAILED, PASSED, UNMEASURED, Bench, Check

PARTS = [
    module.PART for module in (golden, waits, validation, resuming, failures, images, loading, several, quality, steps)
]
_SEVERAL_SECONDS = 400


def main() -> None:
    arguments = _arguments()
    _quieten()
    chosen = [part for part in PARTS if not arguments.only or part.name in arguments.only]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        device = torch.device(arguments.device)
        bench = Bench(device, arguments.devices, arguments.tiny, Path(folder))
        bench.checks = {name: Check(name, text) for part in chosen for name, text in part.checks.items()}
        about = _about(bench)
        for number, part in enumerate(chosen):
            waiting = sum(other.seconds for other in chosen[number + 1 :])
            spare = arguments.minutes * 60 - (time.monotonic() - began) - waiting
            several_devices = part.name == "several" and arguments.devices > 1
            seconds = (
                _SEVERAL_SECONDS if several_devices else max(spare, 10) if number == len(chosen) - 1 else part.seconds
            )
            print(f"{part.name} … ", end="", flush=True)
            bench.run(part, min(seconds, 3600) if bench.cuda else 1200)
            print(f"{bench.parts[part.name]['seconds']} s, {bench.parts[part.name]['outcome']}", flush=True)
            about["seconds"] = round(time.monotonic() - began)
            _write(bench, about, arguments.output)
    _print(bench)
    print(f"{about['seconds']} s. Tables: {arguments.output}.md and .json")
    sys.exit(1 if bench.failed() else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--devices", type=int, help="GPUs, or processes on a CPU (default: all GPUs, one process)")
    parser.add_argument("--tiny", action="store_true", help="small networks, images and numbers of steps")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts")
    parser.add_argument("--minutes", type=float, default=8.7, help="for all parts together on a GPU (default: 8.7)")
    parser.add_argument("--output", default="runs/bench/gpu", help="path of the results, without suffix")
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
    return {"device": f"{bench.devices} × {name}", **cuda, **versions, "cores": os.cpu_count(), "size": size}


def _write(bench: Bench, about: dict[str, Any], output: str) -> None:
    """Write what is there so far: a later part may end the process."""
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(bench.as_json(about), encoding="utf-8")
    path.with_suffix(".md").write_text(bench.as_markdown(about), encoding="utf-8")


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
