"""Expected efficiency on 1 to 64 GPUs, from the bytes of the gradients, and a check of these with two processes.

A ring all-reduce of S bytes over N devices sends 2 (N − 1) / N × S bytes from each, in 2 (N − 1) messages (Patarasuk
and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009). The efficiency is the time of
the computation divided by that of the step. The communication follows the computation in ``alternating`` and
``sequential``; in ``joint`` it is at best hidden behind the backward pass.

    python benchmarks/scaling.py                                   the tables
    python benchmarks/scaling.py --step-ms 40                      for a measured step of one GPU
    python benchmarks/scaling.py --measure                         the check by scaling_check.py; two minutes
"""

from __future__ import annotations

import argparse

from scaling_check import check

from d2csr.models import D2CSR

PAPER = {"scale": 4, "features": 64, "branching": [2, 2], "fusion_features": 64}
GPUS = (1, 2, 4, 8, 16, 32, 64)
# Bytes a second in each direction, and seconds a message: NVLink 4, 200 Gbit/s InfiniBand, 10 Gbit/s Ethernet.
LINKS = {"450 GB/s": (450e9, 5e-6), "25 GB/s": (25e9, 10e-6), "1.25 GB/s": (1.25e9, 50e-6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=25.0, help="computation of a step on one GPU")
    parser.add_argument("--measure", action="store_true", help="compare with two processes of this machine")
    arguments = parser.parse_args()
    size = 4 * sum(parameter.numel() for parameter in D2CSR(**PAPER).parameters())
    if arguments.measure:
        check(PAPER, ring_bytes(size, 2), lambda speed, step, hidden: efficiency(size, 2, step, speed, 0.0, hidden))
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


if __name__ == "__main__":
    main()
