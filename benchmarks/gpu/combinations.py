"""Training steps in all combinations of mode, precision and compile mode, in the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.bench import NO_TIME, Bench, Part
from benchmarks.gpu.build import MODES, PRECISIONS
from benchmarks.gpu.steps import COMPILED, Timed, batch_sizes

_Candidate = tuple[int, str, str, str | None]


def run(bench: Bench) -> None:
    small, large = batch_sizes(bench)
    timed = Timed(bench)
    try:
        for size in (small, large):
            timed.plain(size)
        for candidate in _candidates(bench, small, large):
            timed.add(*candidate)
    finally:
        _judge(bench, timed.rows, small)


def _candidates(bench: Bench, small: int, large: int) -> Iterator[_Candidate]:
    """Yield batch size, mode, precision and compile mode, what matters most first."""
    yield from ((small, mode, precision, None) for precision in ("bf16", "tf32", "fp16", "ieee") for mode in MODES)
    if bench.tiny:
        yield (small, "joint", "bf16", "default")
        return
    yield from ((large, mode, precision, None) for precision in ("bf16", "tf32") for mode in ("joint", "alternating"))
    yield (large, "joint", "bf16", "reduce-overhead")
    for compile in COMPILED:
        for precision in ("bf16", "tf32", "fp16", "ieee"):
            yield from ((small, mode, precision, compile) for mode in MODES)
    yield (small, "joint", "bf16", "max-autotune")


def _judge(bench: Bench, rows: list[dict[str, Any]], small: int) -> None:
    done = {(row["step"], row["precision"], row["compile"]) for row in rows if row.get("ms") and row["batch"] == small}
    wanted = [(mode, p, c) for mode in MODES for p in PRECISIONS for c in ("eager", *COMPILED)]
    missing = [candidate for candidate in wanted if candidate not in done]
    failed = [row for row in rows if row.get("note", NO_TIME[0]) not in NO_TIME]
    counted = f"{len(wanted) - len(missing)} of {len(wanted)} were timed, {len(failed)} failed"
    again = sum(row["recompiled"] for row in rows if row.get("recompiled") is not None)
    bench.judge("combinations.recompilations", again == 0, f"{again} graphs after the warm-up, in all candidates")
    if missing and not failed:
        bench.skip("combinations.all", f"{counted}; the time was used up: --only steps combinations --minutes 30")
    else:
        bench.judge_on_gpu("combinations.all", not failed, counted)


PART = Part(
    "combinations",
    60,
    {
        "combinations.all": "3 modes × {IEEE, TF32, bf16, fp16} × {eager, default, reduce-overhead}, up to 200 steps "
        "without sync",
        "combinations.recompilations": "no graph is compiled after the warm-up",
    },
    run,
)
