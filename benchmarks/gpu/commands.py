"""Trainings of the demo by ``d2csr-train`` in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.bench import Bench

_QUICK = (
    *(
        "+experiment=demo",
        "callbacks=none",
        "trainer.enable_progress_bar=false",
        "trainer.check_val_every_n_epoch=1000",
    ),
    *("data.patch_size=16", "data.patches_per_image=16", "data.num_workers=0", "trainer.max_epochs=100000"),
    *("model.network.features=16", "model.network.fusion_features=8", "optimization=alternating"),
)


def environment(bench: Bench) -> dict[str, str]:
    """Return the environment of a process: the checkout, and no network."""
    path = os.pathsep.join([str(bench.root / "src"), str(bench.root), os.environ.get("PYTHONPATH", "")])
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "PYTHONPATH": path, "D2CSR_CACHE_DIR": str(bench.folder / "cache")}


def arguments(bench: Bench, run_dir: Path, *overrides: str, devices: int = 1) -> list[str]:
    """Return the arguments of ``d2csr-train`` for a quick training of the demo on the device."""
    trainer = "gpu" if bench.cuda else "cpu"
    chosen = [f"trainer={trainer}"] if devices == 1 else ["trainer=ddp", f"trainer.devices={devices}"]
    chosen += [] if bench.cuda or devices == 1 else ["trainer.accelerator=cpu"]
    where = [f"hydra.run.dir={run_dir}", f"data.list_dir={bench.folder / 'demo'}"]
    return [*_QUICK, *chosen, *where, *overrides]


def start(bench: Bench, command: Sequence[str], log: Path, **extra: str) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own; its output goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**environment(bench), **extra},
            cwd=bench.folder,
            start_new_session=True,
        )


def train_command(*overrides: str) -> list[str]:
    """Return the command of ``d2csr-train``, without its console script."""
    return [sys.executable, "-m", "d2csr.commands.train", *overrides]


def wait_for(path: Path, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait for a file that a process writes.

    Raises:
        RuntimeError: the process ended before, or took too long.
    """
    end = time.monotonic() + seconds
    while not path.is_file():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{path.name} was not written: {last_lines(log)}")
        time.sleep(0.05)


def last_lines(log: Path, count: int = 3) -> str:
    """Return the end of the output of a process."""
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-count:])
