"""Time, memory and MFU of training steps, against a plain loop."""

from __future__ import annotations

import time
from typing import Any

import torch
from benchmarks.gpu.bench import NO_TIME, Bench, Part, synchronize
from benchmarks.gpu.build import compiler, network, random_batch, time_steps
from benchmarks.plain import PlainLoop
from torch.utils.flop_counter import FlopCounterMode

from d2csr.models import D2CSR
from d2csr.precision import tf32

COMPILED = ("reduce-overhead", "default")
_TARGET = 5.0

# Mode, precision and compile mode. The first two decide; the compilation that validation.py has done is cached.
_DECISIVE = [("joint", "bf16", None), ("joint", "bf16", "reduce-overhead")]
_FURTHER = [
    *[("alternating", "bf16", None), ("alternating", "bf16", "reduce-overhead")],
    *[("joint", "tf32", None), ("joint", "bf16", "default")],
]


def run(bench: Bench) -> None:
    small, large = batch_sizes(bench)
    timed = Timed(bench)
    try:
        timed.plain(small)
        for candidate in _DECISIVE:
            timed.add(small, *candidate)
        timed.plain(large)
        for candidate in _FURTHER:
            timed.add(small, *candidate)
    finally:
        _judge(bench, timed.rows, small)


def batch_sizes(bench: Bench) -> tuple[int, int]:
    """Return the small and the large batch size."""
    return (2, 4) if bench.tiny else (4, 16)


class Timed:
    """The table of the timed steps.

    Attributes:
        rows: of the table, also those of an earlier part.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench, self.patch = bench, 8 if bench.tiny else 96
        self.rows = bench.table(f"Training steps, LR {self.patch}, {_name(bench)}").rows
        self._peaks = _matrix_products(bench)
        self._flops = _step_flops(bench, self.patch)

    def plain(self, size: int) -> None:
        """Time the plain loop, unless that was done."""
        names = {"batch": size, "step": "plain loop", "precision": "tf32", "compile": "eager"}
        if (row := self._new_row(names)) is None:
            return
        with self.bench.guard(row):
            _time_plain(self.bench, row, size, self.patch)
            self._add_share(row, self._flops["alternating"])

    def add(self, size: int, mode: str, precision: str, compile: str | None) -> None:
        """Time the steps of d2csr, unless that was done, or no time is left."""
        names = {"batch": size, "step": mode, "precision": precision, "compile": compile or "eager"}
        if (row := self._new_row(names)) is None:
            return
        if self.bench.left() < (5 if compile is None else 20) * (not self.bench.tiny):
            row["note"] = NO_TIME[0]
            return
        with self.bench.guard(row), compiler(self.bench):
            batch = random_batch(self.bench, size, self.patch, network(self.bench)["scale"])
            limit = 2 if self.bench.tiny else 200
            found = time_steps(self.bench, mode, precision, batch, compile=compile, steps=limit, at_most=2.5)
            row |= {"ms": 1e3 * found.seconds, "steps": found.steps, "MB": found.peak, "MB reserved": found.reserved}
            row |= {"first step, s": found.first, "graphs": found.graphs[0], "recompiled": found.graphs[1]}
            self._add_share(row, self._flops[mode])

    def _new_row(self, names: dict[str, Any]) -> dict[str, Any] | None:
        """Add the row of a candidate; None if an earlier part had the time for it."""
        known = next((row for row in self.rows if row.items() >= names.items()), None)
        if known is not None:
            if known.get("note") not in NO_TIME:
                return None
            self.rows.remove(known)
        self.rows.append(row := dict(names))
        return row

    def _add_share(self, row: dict[str, Any], flops: float) -> None:
        """Add the speed against the plain loop, and the share of a matrix product."""
        same = {"batch": row["batch"], "step": "plain loop"}
        plain = next((r["ms"] for r in self.rows if r.items() >= same.items() and "ms" in r), None)
        row["times as fast"] = plain / row["ms"] if plain else None
        peak = self._peaks.get(row["precision"])
        row["MFU"] = 1e3 * row["batch"] * flops / row["ms"] / peak if peak else None


def _time_plain(bench: Bench, row: dict[str, Any], size: int, patch: int) -> None:
    """Time the plain loop with torch's defaults, which convolve in TF32 and multiply in IEEE float32."""
    torch.backends.cudnn.benchmark = False  # Lightning's trainers leave it on
    loop = PlainLoop(network(bench), str(bench.device))
    batch = random_batch(bench, size, patch, network(bench)["scale"])
    for _ in range(1 if bench.tiny else 4):
        loop.step(batch["lr"], batch["hr"])
    synchronize(bench.device)
    steps = 1 if bench.tiny else 30
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(steps):
        loop.step(batch["lr"], batch["hr"])
    synchronize(bench.device)
    row |= {"ms": 1e3 * (time.perf_counter() - start) / steps, "steps": steps}
    row["MB"] = torch.cuda.max_memory_allocated() / 1e6 if bench.cuda else None


def _matrix_products(bench: Bench) -> dict[str, float]:
    """Return FLOP a second of a large matrix product, of the same kind as the network's products."""
    table = bench.table("Matrix products")
    if table.rows:  # of an earlier part
        return {row["precision"]: 1e12 * row["TFLOP/s"] for row in table.rows if "TFLOP/s" in row}
    size = 128 if bench.tiny else 8192
    found: dict[str, float] = {}
    for name, dtype in {"ieee": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        row: dict[str, Any] = {"precision": name}
        table.rows.append(row)
        with bench.guard(row), tf32(name == "tf32"):
            a, b = (torch.randn(size, size, device=bench.device, dtype=dtype or torch.float32) for _ in range(2))
            for _ in range(3):
                a @ b
            synchronize(bench.device)
            start, times = time.perf_counter(), 2 if bench.tiny else 10
            for _ in range(times):
                a @ b
            synchronize(bench.device)
            found[name] = times * 2 * size**3 / (time.perf_counter() - start)
            row["TFLOP/s"] = found[name] / 1e12
    return found


def _step_flops(bench: Bench, patch: int) -> dict[str, float]:
    """Return the floating-point operations of a step for one image, counted without computing anything."""
    with torch.device("meta"):
        model = D2CSR(**network(bench))
        lr = torch.empty(1, 3, patch, patch)

    def count(work: Any) -> float:
        with FlopCounterMode(display=False) as counter:
            work()
        return float(counter.get_total_flops())

    divergence = count(lambda: model.divergence(lr).sum().backward())
    with torch.no_grad():
        forward, predictions = count(lambda: model.divergence(lr)), model.divergence(lr)
    convergence = count(lambda: model.convergence(predictions)[0].sum().backward())
    joint = divergence + convergence
    return {"joint": joint, "alternating": joint + forward, "sequential": divergence}  # of the first stage


def _judge(bench: Bench, rows: list[dict[str, Any]], small: int) -> None:
    fast = [row for row in rows if row.get("times as fast") and row["batch"] == small and row["precision"] == "bf16"]
    compiled = [row for row in fast if row["compile"] != "eager"]
    if compiled:
        best = max(compiled, key=lambda row: row["times as fast"])
        detail = f"{best['times as fast']:.2f} times, {best['step']}, {best['compile']}"
        bench.judge_at_full_size("steps.five_times", best["times as fast"] >= _TARGET, detail)
        again = sum(row["recompiled"] for row in rows if row.get("recompiled") is not None)
        bench.judge("steps.recompilations", again == 0, f"{again} graphs after the warm-up, in all candidates")
    elif errors := [
        row["note"] for row in rows if row["compile"] != "eager" and row.get("note", NO_TIME[0]) not in NO_TIME
    ]:
        for name in ("steps.five_times", "steps.recompilations"):
            bench.judge_on_gpu(name, False, f"no compiled step was timed: {errors[0]}")
    # Convolutions in IEEE float32 can use Winograd's algorithm, with fewer operations than are counted.
    joint = [row for row in rows if row["step"] == "joint" and row["precision"] != "ieee" and row.get("MFU")]
    if joint:
        best = max(joint, key=lambda row: row["MFU"])
        bench.judge_at_full_size(
            "steps.mfu", 0 < best["MFU"] <= 1.05, f"at most {best['MFU']:.0%}, {best['precision']}"
        )


def _name(bench: Bench) -> str:
    return "a tiny network" if bench.tiny else "the paper's network at ×4"


PART = Part(
    "steps",
    110,
    {
        "steps.five_times": "at least 5 times the plain loop, batch 4, LR 96, bf16, compiled",
        "steps.recompilations": "no graph is compiled after the warm-up",
        "steps.mfu": "share of a matrix product of the same kind, between 0 and 1",
    },
    run,
)
