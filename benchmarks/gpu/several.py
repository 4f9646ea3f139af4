"""Several processes: one and several GPUs give the same weights, and all processes end when one is killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import MODES
from benchmarks.gpu.commands import arguments, last_lines, start, train_command, wait_for

_END = 60.0  # seconds in which all processes have to end
_TOKEN = "D2CSR_BENCH_TOKEN"  # environment variable that the processes of a training inherit
LAUNCHERS = ("lightning", "torchrun", "srun")


def run(bench: Bench) -> None:
    single = _train_ranks(bench, 1, "joint", 4)
    bench.judge_on_gpu("several.one_process", single["backend"] == "nccl", f"{single['backend']}, one process, DDP")
    if bench.devices < 2:
        for name in PART.checks:
            if name != "several.one_process":
                bench.skip(name, "one device")
        return
    _equality(bench)
    for launcher in LAUNCHERS:
        for rank in (0, 1):
            name = f"several.kill.{launcher}.{rank}"
            if launcher == "srun" and (shutil.which("srun") is None or "SLURM_JOB_ID" not in os.environ):
                bench.skip(name, "srun is not there, or this is no SLURM job")
                continue
            with bench.guard({}, name):
                seconds = _killed(bench, launcher, rank)
                bench.judge(name, seconds < _END, f"all ended after {seconds:.1f} s")


def _equality(bench: Bench) -> None:
    table = bench.table(f"Training on {bench.devices} devices")
    steps = 10 if bench.tiny else 50
    for mode in MODES:
        row: dict[str, Any] = {"mode": mode, "devices": bench.devices}
        table.rows.append(row)
        with bench.guard(row, f"several.equal.{mode}"):
            one, several = (_train_ranks(bench, count, mode, steps) for count in (1, bench.devices))
            weights, others = one["weights"], several["weights"]
            off = max((weights[name] - value).abs().max().item() for name, value in others.items())
            row |= {"largest difference": off, "MB reduced a step": several["bytes"] / 1e6}
            row["MB of float32 weights"] = sum(4e-6 * value.numel() for value in weights.values())
            bench.judge(f"several.equal.{mode}", off < 1e-5, f"{off:.1e} after {steps} steps")
            bench.judge("several.bytes", several["bytes"] > 0, f"{mode}: {several['bytes'] / 1e6:.3f} MB a step")


def _train_ranks(bench: Bench, count: int, mode: str, steps: int) -> dict[str, Any]:
    """Train in some processes; return the weights, and the bytes of a step's reductions."""
    file = bench.folder / f"ranks-{mode}-{count}.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    numbers = [bench.device.type, str(count), mode, str(steps), str(bench.tiny), str(file)]
    processes = []
    for rank in range(count):
        extra = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
        extra |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.gpu.ranks", *numbers]
        processes.append(start(bench, command, bench.folder / f"ranks-{rank}.log", **extra))
    try:
        if any(process.wait(bench.patience(150)) for process in processes):
            raise RuntimeError(last_lines(bench.folder / "ranks-0.log"))
    finally:
        for process in processes:
            process.kill()
    return torch.load(file, weights_only=True)


def _killed(bench: Bench, launcher: str, rank: int) -> float:
    """Kill one rank of a training; return the seconds until all processes have ended."""
    token = uuid4().hex
    run_dir, log = bench.folder / f"kill-{launcher}-{rank}", bench.folder / f"kill-{launcher}-{rank}.log"
    given = arguments(bench, run_dir, "checkpoint.every_n_steps=5", "data.batch_size=2", devices=bench.devices)
    process = start(bench, _launch(launcher, bench.devices, given), log, **{_TOKEN: token, "OMP_NUM_THREADS": "1"})
    try:
        wait_for(run_dir / "checkpoints" / "last.ckpt", process, log, bench.patience(90))
        os.kill(_rank_process(token, launcher, rank, process.pid), signal.SIGKILL)
        begun = time.monotonic()
        while _alive(process, token) and time.monotonic() - begun < _END:
            time.sleep(0.1)
        return time.monotonic() - begun
    finally:
        for pid in _processes(token):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _launch(launcher: str, devices: int, given: list[str]) -> list[str]:
    if launcher == "torchrun":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
        return [*torchrun, "-m", "d2csr.commands.train", *given]
    if launcher == "srun":
        return ["srun", "--kill-on-bad-exit=1", f"--ntasks={devices}", *train_command(*given, "trainer=slurm")]
    return train_command(*given)


def _rank_process(token: str, launcher: str, rank: int, launched: int) -> int:
    """Return the process of a rank; rank zero of Lightning's own launcher is the command itself."""
    if launcher == "lightning" and rank == 0:
        return launched
    name = {"lightning": "LOCAL_RANK", "torchrun": "RANK", "srun": "SLURM_PROCID"}[launcher]
    return next(pid for pid, found in _processes(token).items() if found.get(name) == str(rank))


def _alive(process: subprocess.Popen[bytes], token: str) -> bool:
    return process.poll() is None or bool(_processes(token))


def _processes(token: str) -> dict[int, dict[str, str]]:
    """Return the environments of all processes with the token, by process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if environment.get(_TOKEN) == token:
            found[int(folder.name)] = environment
    return found


PART = Part(
    "several",
    40,
    {
        "several.one_process": "DDP with one process, by NCCL",
        **{
            f"several.equal.{mode}": f"1×4 and N×(4/N) patches, scope image: within 1e-5 after 50 steps, {mode}"
            for mode in MODES
        },
        "several.bytes": "bytes that a step reduces over all devices; no bound",
        **{
            f"several.kill.{launcher}.{rank}": f"kill -9 of rank {rank} under {launcher} ends all within 60 s"
            for launcher in LAUNCHERS
            for rank in (0, 1)
        },
    },
    run,
)
