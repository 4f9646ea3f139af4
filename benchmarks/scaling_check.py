"""Check of ``scaling.py`` with two processes of this machine: bytes and efficiency, by gloo over the loopback device.

Each process has one thread. It takes steps of the paper's network on one LR patch with and without the exchange of
gradients, in turn, as ``alternating`` and ``joint`` do: forward and backward passes, all-reduce, and Adam.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from d2csr.models import D2CSR
from d2csr.training.ddp import average_gradients

PATCHES = (12, 24, 48)
EXCHANGES, ROUNDS, LARGE = 10, 7, 256 << 20
Predict = Callable[[float, float, float], float]  # bytes a second, seconds of a step, hidden share -> efficiency


def check(settings: dict, expected_bytes: float, predict: Predict) -> None:
    """Print what two processes exchange in a step, and their efficiency beside the expected one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("The check needs two cores.")
    before = _sent()
    mp.spawn(_exchange, (settings,), nprocs=2)
    found = (_sent() - before) / 2 / EXCHANGES
    print(f"sent by each of two processes: {found / 1e6:.2f} MB a step, expected {expected_bytes / 1e6:.2f} MB")
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_train, (settings, cores, results), nprocs=2)
    bandwidth, exchange = results.get()
    print(f"an all-reduce of {LARGE / 1e6:.0f} MB: {bandwidth / 1e9:.2f} GB/s sent by each")
    print(f"the exchange of a step alone: {exchange * 1e3:.0f} ms, expected {expected_bytes / bandwidth * 1e3:.0f} ms")
    print("| | LR patch | step alone, ms | with exchange, ms | efficiency | expected | expected, if hidden |")
    print("| --- |" + " ---: |" * 6)
    while not results.empty():
        mode, patch, alone, together = results.get()
        shares = [alone / together, predict(bandwidth, alone, 0.0), predict(bandwidth, alone, 0.6)]
        hidden = f"{shares[2]:.0%}" if mode == "joint" else ""
        times = f"{alone * 1e3:.0f} | {together * 1e3:.0f}"
        print(f"| `{mode}` | {patch}×{patch} | {times} | {shares[0]:.0%} | {shares[1]:.0%} | {hidden} |")


def _exchange(rank: int, settings: dict) -> None:
    """Average gradients alone, so that nothing else goes over the loopback device."""
    _join(rank)
    network = D2CSR(**settings)
    for _ in range(EXCHANGES):
        _fill(network, float(rank))
        _average(network)
    assert all(bool((parameter.grad == 0.5).all()) for parameter in network.parameters())
    dist.destroy_process_group()


def _train(rank: int, settings: dict, cores: list[int], results: mp.SimpleQueue) -> None:
    os.sched_setaffinity(0, cores[rank : rank + 1])
    _join(rank)
    large = torch.zeros(LARGE // 4)
    seconds = min(_timed(dist.all_reduce, large) for _ in range(ROUNDS))
    network = D2CSR(**settings)
    _fill(network, 0.0)
    exchange = statistics.median(_timed(_average, network) for _ in range(ROUNDS))
    found: list = [(LARGE / seconds, exchange)]  # a ring of two sends each byte once
    for mode, kind in (("alternating", _Alternating), ("joint", _Joint)):
        for patch in PATCHES:
            step = kind(D2CSR(**settings))
            lr, hr = (torch.rand(1, 3, side, side) for side in (patch, settings["scale"] * patch))
            times: dict[bool, list[float]] = {False: [], True: []}
            for number in range(2 * ROUNDS + 2):
                together = number % 2 == 1
                seconds = _timed(step, lr, hr, together)
                if number >= 2:
                    times[together].append(seconds)
            found.append((mode, patch, *(statistics.median(times[together]) for together in (False, True))))
    if rank == 0:
        for item in found:
            results.put(item)
    dist.destroy_process_group()


def _fill(network: D2CSR, value: float) -> None:
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, value)


def _average(network: D2CSR) -> None:
    average_gradients(network.divergence.parameters())
    average_gradients(network.convergence.parameters())


class _Alternating:
    """A step of the divergence network, then one of the convergence network, each with its all-reduce."""

    def __init__(self, network: D2CSR) -> None:
        self.network = network
        self.adams = [torch.optim.Adam(part.parameters()) for part in (network.divergence, network.convergence)]

    def __call__(self, lr: Tensor, hr: Tensor, exchange: bool) -> None:
        leaves = self.network.divergence(lr)
        self._update(0, F.mse_loss(leaves, hr.unsqueeze(1).expand_as(leaves)), exchange)
        with torch.no_grad():
            leaves = self.network.divergence(lr)
        self._update(1, F.mse_loss(self.network.convergence(leaves)[0], hr), exchange)

    def _update(self, number: int, loss: Tensor, exchange: bool) -> None:
        loss.backward()
        if exchange:
            average_gradients(p for group in self.adams[number].param_groups for p in group["params"])
        self.adams[number].step()
        self.adams[number].zero_grad()


class _Losses(nn.Module):
    def __init__(self, network: D2CSR) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        leaves = self.network.divergence(lr)
        sr = self.network.convergence(leaves.detach())[0]
        return F.mse_loss(leaves, hr.unsqueeze(1).expand_as(leaves)) + F.mse_loss(sr, hr)


class _Joint:
    """One step of both networks in torch's DDP, which exchanges gradients during the backward pass."""

    def __init__(self, network: D2CSR) -> None:
        self.losses = nn.parallel.DistributedDataParallel(_Losses(network))
        self.adam = torch.optim.Adam(network.parameters())

    def __call__(self, lr: Tensor, hr: Tensor, exchange: bool) -> None:
        with nullcontext() if exchange else self.losses.no_sync():
            self.losses(lr, hr).backward()
        self.adam.step()
        self.adam.zero_grad()


def _join(rank: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29613", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", rank=rank, world_size=2)


def _timed(work: Callable[..., object], *arguments: object) -> float:
    """Return the wall-clock seconds of a call that both processes begin at once."""
    dist.barrier()
    start = time.perf_counter()
    work(*arguments)
    dist.barrier()
    return time.perf_counter() - start


def _sent() -> int:
    """Return the bytes that the loopback device has sent."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])
