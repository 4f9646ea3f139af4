"""Inference on whole images: time, memory against its budget, and strips against the whole image."""

from __future__ import annotations

import time
from typing import Any

import torch
from benchmarks.gauges import memory
from benchmarks.gpu.bench import Bench, Part, free, synchronize
from benchmarks.gpu.build import network
from torch import Tensor

from d2csr.inference import Inference
from d2csr.models import SRNetwork, build_network
from d2csr.precision import computing_in

_SIZES = ((256, 256), (1000, 700), (2800, 1800))
_TINY = ((24, 24), (40, 28))
# Budgets that hold the image as a whole, by its size.
_BUDGETS = {(256, 256): "2GB", (1000, 700): "4GB", (2800, 1800): "20GB"}
_EQUAL = 1e-6


def run(bench: Bench) -> None:
    torch.manual_seed(0)
    model = build_network(network(bench)).to(bench.device).eval()
    table = bench.table("Inference, result on the device")
    try:
        for width, height in _TINY if bench.tiny else _SIZES:
            _size(bench, model, width, height, table.rows)
            free(bench.device)
    finally:
        _judge(bench, table.rows)


def _size(bench: Bench, model: SRNetwork, width: int, height: int, rows: list[dict[str, Any]]) -> None:
    """Measure one size; as a whole last, since maps of more than 2³¹ values can end all use of the GPU."""
    lr = torch.rand(1, 3, height, width, device=bench.device)
    in_strips: Tensor | None = None
    for way in ("strips", "whole"):
        for precision in ("32", "bf16"):
            rows.append(row := {"LR": f"{width}×{height}", "precision": precision, "way": way})
            with bench.guard(row):
                sr = _measure(bench, model, lr, precision, way, row)
                if precision == "32" and way == "strips":
                    in_strips = sr
                elif precision == "32" and in_strips is not None:
                    row["difference from the strips"] = (sr - in_strips.to(sr.device)).abs().max().item()
                del sr


def _measure(bench: Bench, model: SRNetwork, lr: Tensor, precision: str, way: str, row: dict[str, Any]) -> Tensor:
    """Compute an image, after a warm-up on it, and fill in time and memory."""
    budget = _BUDGETS.get((lr.shape[-1], lr.shape[-2]), "2GB")
    inference = Inference(precision=precision, memory=budget)

    def compute() -> Tensor:
        if way == "strips":
            return inference.outputs(model, lr, keep_leaves=False).sr
        with torch.inference_mode(), computing_in(precision, bench.device):
            return model(lr).float()

    compute()
    synchronize(bench.device)
    start = time.perf_counter()
    compute()
    synchronize(bench.device)
    row["s"] = time.perf_counter() - start
    with memory(bench.device) as reading:
        sr = compute()
    row["MB"] = reading.peak
    if way == "strips":
        row["budget"] = budget
        plan = inference.plan(model, lr)
        row["rows of a strip"] = plan.length if plan.tile is None else f"tiles of {plan.tile}"
    return sr


def _judge(bench: Bench, rows: list[dict[str, Any]]) -> None:
    differences = [row["difference from the strips"] for row in rows if "difference from the strips" in row]
    if differences:
        worst = max(differences)
        bench.judge("images.strips", worst <= _EQUAL, f"{worst:.1e} on {len(differences)} sizes, range 1")
    used = [row for row in rows if row.get("budget") and row.get("MB") is not None]
    over = [row for row in used if row["MB"] > 1e3 * float(row["budget"].removesuffix("GB"))]
    shown = "; ".join(f"{row['LR']} {row['precision']}: {row['MB']:.0f} MB of {row['budget']}" for row in used)
    bench.judge_on_gpu("images.memory", bool(used) and not over, shown)
    strips = [row for row in rows if row["way"] == "strips"]
    missing = [f"{row['LR']} {row['precision']}: {row.get('note')}" for row in strips if "s" not in row]
    bench.judge("images.sizes", not missing, "; ".join(missing) or f"{len(strips)} measured")


PART = Part(
    "images",
    45,
    {
        "images.sizes": "256², 1000×700, 2800×1800 in float32 and bf16, in strips; as a whole where the GPU holds it",
        "images.strips": "strips and the whole image differ by at most 1e-6 in IEEE",
        "images.memory": "the peak is within inference.memory",
    },
    run,
)
