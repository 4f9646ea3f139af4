"""Software, hardware and command of a run; the key ``device``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import d2csr
from d2csr.errors import ConfigError

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")
_GIT_TIMEOUT = 5  # seconds; a checkout on a network can be slow


def environment() -> dict[str, Any]:
    """Return what is needed to repeat a run, as plain values.

    Returns:
        ``command``, ``host`` and ``platform``; ``versions`` by package; ``devices``: the names of the CPU and of all
        GPUs; ``git``: ``folder``, ``commit`` and ``dirty`` (whether a tracked file has changed) of the checkouts that
        hold the working folder and the package, empty without any.
    """
    return {
        "command": _command(),
        "host": platform.node(),
        "platform": platform.platform(),
        "versions": _versions(),
        "devices": _devices(),
        "git": list(_checkouts()),
    }


def environment_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines that show what :func:`environment` returned."""
    lines = [f"{name}: {found[name]}" for name in ("command", "host", "platform")]
    lines.append("versions: " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    lines.append("devices: " + ", ".join(found["devices"]))
    for checkout in found["git"]:
        lines.append(f"git: {checkout['commit']}{' with changes' if checkout['dirty'] else ''} in {checkout['folder']}")
    return lines


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["python", "-m", spec.name] if spec else [Path(sys.argv[0]).name]
    return shlex.join([*program, *sys.argv[1:]])


def _versions() -> dict[str, str]:
    found = {"d2csr": d2csr.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a copy on PYTHONPATH
            found[package] = "unknown"
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def _devices() -> list[str]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        gpus.append("Apple GPU (mps)")
    return [f"{_cpu()} ({torch.get_num_threads()} threads)", *gpus]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _checkouts() -> Iterator[dict[str, Any]]:
    seen = set()
    for folder in (Path.cwd(), Path(__file__).resolve().parent):
        top = _git(folder, "rev-parse", "--show-toplevel")
        commit = _git(folder, "rev-parse", "HEAD")
        if top and commit and top not in seen:
            seen.add(top)
            changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
            yield {"folder": top, "commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command, or None if it fails, as it does outside a checkout."""
    # Neither locks, which could disturb a commit, nor the programs that a checkout can name.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def find_device(device: str | None) -> torch.device:
    """Return a device, by default CUDA, MPS or the CPU; raise a ConfigError if it is unknown or not available."""
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if device is None:
        return torch.device(next(kind for kind, count in present.items() if count))
    kind, _, index = str(device).replace("gpu", "cuda").partition(":")
    if kind not in present or not (index.isdecimal() or ":" not in str(device)):
        raise ConfigError(f"device: must be cpu, cuda, cuda:1 or mps, got {device!r}.")
    if int(index or 0) >= present[kind]:
        raise ConfigError(f"device={device}: there is no such device here, or torch was built without it.")
    return torch.device(kind, int(index)) if index and kind != "cpu" else torch.device(kind)
