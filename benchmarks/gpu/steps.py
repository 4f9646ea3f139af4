"""Time, memory and MFU of training steps, against a plain loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from benchmarks.gpu.bench import Bench, Part, synchronize
from benchmarks.gpu.build import MODES, PRECISIONS, compiler, network, random_batch, time_steps
from benchmarks.plain import PlainLoop
from torch.utils.flop_counter import FlopCounterMode

from d2csr.models import D2CSR
from d2csr.tf32 import tf32

_COMPILED = ("reduce-overhead", "default")
_TARGET = 5.0


def run(bench: Bench) -> None:
    patch, small, large = (8, 2, 4) if bench.tiny else (96, 4, 16)
    peaks = _matrix_products(bench)
    flops = _step_flops(bench, patch)
    table = bench.table(f"Training steps, LR {patch}, {_name(bench)}")
    plain = {size: _plain(bench, table.rows, size, patch, peaks, flops) for size in (small, large)}
    wanted = list(_candidates(bench, small, large))
    for size, mode, precision, compile in wanted:
        row = {"batch": size, "step": mode, "precision": precision, "compile": compile or "eager"}
        table.rows.append(row)
        if bench.left() < (5 if compile is None else 20) * (not bench.tiny):
            row["note"] = "no time left"
            continue
        with bench.guard(row), compiler(bench):
            batch = random_batch(bench, size, patch, network(bench)["scale"])
            limit = 2 if bench.tiny else 200
            found = time_steps(bench, mode, precision, batch, compile=compile, steps=limit, at_most=2.5)
            work = flops["joint" if mode == "joint" else "sequential" if mode == "sequential" else "alternating"]
            row |= {
                "ms": 1e3 * found.seconds,
                "steps": found.steps,
                "times as fast": plain[size] / found.seconds if plain[size] else None,
                "MB": found.peak,
                "MB reserved": found.reserved,
                "MFU": size * work / found.seconds / peaks[precision] if peaks.get(precision) else None,
                "first step, s": found.first,
                "graphs": found.graphs[0],
                "recompiled": found.graphs[1],
            }
    _judge(bench, table.rows, small)


def _candidates(bench: Bench, small: int, large: int) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield batch size, mode, precision and compile mode, what matters most first."""
    yield from ((small, mode, precision, None) for precision in ("bf16", "tf32") for mode in MODES)
    yield from ((small, mode, "bf16", "reduce-overhead") for mode in ("joint", "alternating"))
    yield from ((small, mode, precision, None) for precision in ("ieee", "fp16") for mode in MODES)
    yield (small, "joint", "bf16", "default")
    if bench.tiny:
        return
    yield from ((large, mode, precision, None) for precision in ("bf16", "tf32") for mode in ("joint", "alternating"))
    yield (large, "joint", "bf16", "reduce-overhead")
    first = {(mode, "bf16", "reduce-overhead") for mode in ("joint", "alternating")} | {("joint", "bf16", "default")}
    for compile in _COMPILED:
        for precision in ("bf16", "tf32", "fp16", "ieee"):
            yield from ((small, m, precision, compile) for m in MODES if (m, precision, compile) not in first)
    yield (small, "joint", "bf16", "max-autotune")


def _plain(
    bench: Bench,
    rows: list[dict[str, Any]],
    size: int,
    patch: int,
    peaks: dict[str, float],
    flops: dict[str, float],
) -> float | None:
    """Time the plain loop with torch's defaults, which convolve in TF32 and multiply in IEEE float32."""
    row: dict[str, Any] = {"batch": size, "step": "plain loop", "precision": "tf32", "compile": "eager"}
    rows.append(row)
    with bench.guard(row):
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
        seconds = (time.perf_counter() - start) / steps
        row |= {"ms": 1e3 * seconds, "steps": steps, "times as fast": 1.0}
        row["MFU"] = size * flops["alternating"] / seconds / peaks["tf32"] if peaks.get("tf32") else None
        row["MB"] = torch.cuda.max_memory_allocated() / 1e6 if bench.cuda else None
        return seconds
    return None


def _matrix_products(bench: Bench) -> dict[str, float]:
    """Return FLOP a second of a large matrix product, of the same kind as the network's products."""
    table = bench.table("Matrix products")
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
    compiled = [
        row
        for row in rows
        if row.get("times as fast")
        and row["batch"] == small
        and row["precision"] == "bf16"
        and row["compile"] != "eager"
    ]
    if compiled:
        best = max(compiled, key=lambda row: row["times as fast"])
        detail = f"{best['times as fast']:.2f} times, {best['step']}, {best['compile']}"
        bench.judge_on_gpu("steps.five_times", best["times as fast"] >= _TARGET, detail)
        again = sum(row["recompiled"] for row in rows if row.get("recompiled") is not None)
        bench.judge("steps.recompilations", again == 0, f"{again} graphs after the warm-up, in all candidates")
    done = {(row["step"], row["precision"], row["compile"]) for row in rows if row.get("ms") and row["batch"] == small}
    wanted = [(m, p, c) for m in MODES for p in PRECISIONS for c in ("eager", *_COMPILED)]
    missing = [" ".join(candidate) for candidate in wanted if candidate not in done]
    failed = [row for row in rows if row.get("note", "no time left") not in ("no time left", "out of time")]
    counted = f"{len(wanted) - len(missing)} of {len(wanted)} were timed, {len(failed)} failed"
    if missing and not failed:
        bench.skip("steps.all", f"{counted}; the time was used up: --only steps --minutes 30")
    else:
        bench.judge_on_gpu("steps.all", not failed, counted)
    joint = [row for row in rows if row["step"] == "joint" and row.get("MFU")]
    if joint:
        best = max(joint, key=lambda row: row["MFU"])
        bench.judge_on_gpu("steps.mfu", 0 < best["MFU"] <= 1.05, f"at most {best['MFU']:.0%}, {best['precision']}")


def _name(bench: Bench) -> str:
    return "a tiny network" if bench.tiny else "the paper's network at ×4"


PART = Part(
    "steps",
    195,
    {
        "steps.five_times": "at least 5 times the plain loop, batch 4, LR 96, bf16, compiled",
        "steps.all": "3 modes × {IEEE, TF32, bf16, fp16} × {eager, default, reduce-overhead}, 200 steps without sync",
        "steps.recompilations": "no graph is compiled after the warm-up",
        "steps.mfu": "share of a matrix product of the same kind, between 0 and 1",
    },
    run,
)
