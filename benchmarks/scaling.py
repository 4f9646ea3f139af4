"""Expected efficiency on 1 to 64 GPUs, from the bytes of the gradients, and a check of these with two processes.

A ring all-reduce of S bytes over N devices sends 2 (N − 1) / N × S bytes from each, in 2 (N − 1) messages (Patarasuk
and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009). The efficiency is the time of
the computation divided by that of the step. The communication follows the computation in ``alternating`` and
``sequential``; in ``joint`` it is at best hidden behind the backward pass.

    python benchmarks/scaling.py                                   the tables
    python benchmarks/scaling.py --step-ms 40                      for a measured step of one GPU
    python benchmarks/scaling.py --measure                         the check; half a minute
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from d2csr.models import D2CSR
from d2csr.training.ddp import average_gradients

PAPER = {"scale": 4, "features": 64, "branching": [2, 2], "fusion_features": 64}
GPUS = (1, 2, 4, 8, 16, 32, 64)
# Bytes a second in each direction, and seconds a message: NVLink 4, 200 Gbit/s InfiniBand, 10 Gbit/s Ethernet.
LINKS = {"450 GB/s": (450e9, 5e-6), "25 GB/s": (25e9, 10e-6), "1.25 GB/s": (1.25e9, 50e-6)}
REPEATS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=25.0, help="computation of a step on one GPU")
    parser.add_argument("--measure", action="store_true", help="compare with two gloo processes")
    arguments = parser.parse_args()
    size = 4 * sum(parameter.numel() for parameter in D2CSR(**PAPER).parameters())
    if arguments.measure:
        _measure(size)
        return
    print(f"{size / 1e6:.1f} MB of gradients, {arguments.step_ms:g} ms of computation a step on one GPU")
    for name, hidden in (("alternating, sequential", 0.0), ("joint, at best", 0.6)):  # the backward pass is about 60 %
        print(f"\n| {name} | " + " | ".join(map(str, GPUS)) + " |\n| --- |" + " ---: |" * len(GPUS))
        for link, speed in LINKS.items():
            shares = [efficiency(size, n, arguments.step_ms / 1e3, *speed, hidden) for n in GPUS]
            print(f"| {link} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


def ring_bytes(size: int, devices: int) -> float:
    """Return the bytes that each device sends in an all-reduce of ``size`` bytes."""
    return 2 * (devices - 1) / devices * size


def efficiency(size: int, devices: int, step: float, bandwidth: float, latency: float, hidden: float) -> float:
    """Return the share of the computation in the time of a step; ``hidden`` of it runs beside the communication."""
    communication = ring_bytes(size, devices) / bandwidth + 2 * (devices - 1) * latency
    return step / (step + max(0.0, communication - hidden * step))


def _measure(size: int) -> None:
    """Print the bytes that went over the loopback device in a step, and the time of its all-reduce."""
    before = _sent()
    mp.spawn(_work, (size,), nprocs=2)
    found = (_sent() - before) / 2 / REPEATS
    expected = ring_bytes(size, 2)
    print(f"sent by each of two processes: {found / 1e6:.2f} MB a step, expected {expected / 1e6:.2f} MB")


def _work(rank: int, size: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29613"}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    network = D2CSR(**PAPER)
    seconds = []
    for _ in range(REPEATS):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, float(rank))
        dist.barrier()
        start = time.perf_counter()
        average_gradients(network.divergence.parameters())
        average_gradients(network.convergence.parameters())
        seconds.append(time.perf_counter() - start)
    assert all(bool((parameter.grad == 0.5).all()) for parameter in network.parameters())
    if rank == 0:
        best = min(seconds)
        print(
            f"{statistics.median(seconds) * 1e3:.0f} ms a step (best {best * 1e3:.0f} ms): {size / best / 1e9:.2f} GB/s"
        )
    dist.destroy_process_group()


def _sent() -> int:
    """Return the bytes that the loopback device has sent."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


if __name__ == "__main__":
    main()
