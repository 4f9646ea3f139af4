"""A training in one of several processes: ``python -m benchmarks.gpu.ranks DEVICE RANKS MODE STEPS TINY FILE``.

Rank zero saves the weights and the bytes that a step reduces over all ranks.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.build import make_task, make_trainer, network
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

GLOBAL_BATCH = 4
_SIZES = {"bfloat16": 2, "half": 2, "double": 8, "long": 8, "char": 1, "byte": 1}  # bytes of a value; else 4
_TRACED = 1  # the step whose collectives are recorded


class _Collectives(Callback):
    """Records the collectives of one step by torch's profiler."""

    def __init__(self) -> None:
        self.bytes = 0.0

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == _TRACED and trainer.current_epoch == 0:
            self.profiler = torch.profiler.profile(record_shapes=True)
            self.profiler.__enter__()

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == _TRACED and trainer.current_epoch == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profiler.__exit__(None, None, None)
            self.bytes = reduced_bytes(_trace(self.profiler))


def _trace(profiler: Any) -> list[dict[str, Any]]:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        return json.loads(Path(file.name).read_text(encoding="utf-8"))["traceEvents"]


def reduced_bytes(events: list[dict[str, Any]]) -> float:
    """Return the bytes of all reductions in a trace.

    Gloo records an operation with the shape and type of its tensor. NCCL does in some versions; in others it records
    the number and type of the values.
    """
    operations = [event["args"] for event in events if event.get("name", "").endswith(":all_reduce")]
    shapes = [(a["Input Dims"][0], a.get("Input type", ["float"])[0]) for a in operations if a.get("Input Dims")]
    if shapes:
        return float(sum(math.prod(shape) * _itemsize(kind) for shape, kind in shapes))
    comms = [event.get("args", {}) for event in events if event.get("name") == "record_param_comms"]
    reductions = [a for a in comms if "reduce" in str(a.get("Collective name", ""))]
    return float(sum(int(a.get("In msg nelems", 0)) * _itemsize(str(a.get("dtype"))) for a in reductions))


def _itemsize(kind: str) -> int:
    kind = kind.lower()
    return next((size for name, size in _SIZES.items() if name in kind), 4)


def main() -> None:
    device, ranks, mode, steps, tiny, file = sys.argv[1:]
    rank, count = int(os.environ.get("RANK", 0)), int(ranks)
    bench = Bench(torch.device(device), count, tiny == "True", Path(file).parent)
    scale, patch, share = network(bench)["scale"], 8 if bench.tiny else 32, GLOBAL_BATCH // count
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(int(steps)):
        hr = torch.rand(GLOBAL_BATCH, 3, patch * scale, patch * scale, generator=generator)
        lr = torch.nn.functional.avg_pool2d(hr, scale)
        mine = slice(rank * share, (rank + 1) * share)
        batches.append({"lr": lr[mine].contiguous(), "hr": hr[mine].contiguous()})
    task = make_task(
        mode,
        network(bench),
        divergence={"weight": 1.0, "after": -1},
        losses={"divergence": {"scope": "image", "margin_same": 0.5, "margin_diff": 0.5}},
    )
    collectives = _Collectives()
    trainer = make_trainer(
        bench,
        mode,
        "ieee",
        devices=count,
        strategy="ddp",
        callbacks=[collectives],
        max_epochs=2 if mode == "sequential" else 1,
        deterministic=True,
    )
    trainer.fit(task, DataLoader(batches, batch_size=None))
    if rank == 0:
        weights = {name: value.cpu() for name, value in task.network.state_dict().items()}
        backend = torch.distributed.get_backend()
        torch.save({"weights": weights, "bytes": collectives.bytes, "backend": backend}, file)


if __name__ == "__main__":
    main()
