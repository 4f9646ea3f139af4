"""Size, difference and duration of each export, and the speed of ONNX Runtime against torch.

    python benchmarks/export.py                     # the paper's network at ×4, with random weights
    python benchmarks/export.py --features 16 --size 32 --rounds 3

The speeds are medians over rounds in which the programs take turns, so that other work on the machine slows all alike.
CPU seconds do not depend on other work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
import torch

import d2csr

Result = TypeVar("Result")

EXPORTS = (
    ("x4.onnx", {}),
    ("x4-all.onnx", {"outputs": "all"}),
    ("x4-half.onnx", {"precision": 16}),
    ("x4.pt2", {}),
    ("x4-half.pt2", {"precision": 16}),
    ("x4.safetensors", {}),
    ("x4-half.safetensors", {"precision": 16}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ckpt", help="a checkpoint instead of random weights")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=96, help="height and width of the LR image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'file':>22} {'MB':>7} {'difference':>11} {'s':>7} {'CPU s':>7}")
        for name, settings in EXPORTS:
            (wall, cpu), done = timed(lambda: d2csr.export(model, Path(folder, name), **settings))  # noqa: B023
            print(f"{name:>22} {done.bytes / 1e6:7.1f} {done.difference:11.1e} {wall:7.1f} {cpu:7.1f}", flush=True)
        compare(model, Path(folder), options)


def load(options: argparse.Namespace) -> d2csr.D2CSR:
    if options.ckpt:
        return d2csr.load_model(options.ckpt)
    torch.manual_seed(0)
    return d2csr.D2CSR(options.scale, options.features, [2, 2], options.features).eval()


def compare(model: d2csr.D2CSR, folder: Path, options: argparse.Namespace) -> None:
    """Print the median seconds of a forward pass by each program, and its ratio to torch."""
    lr = torch.rand(1, 3, options.size, options.size)
    runs = {
        "torch": lambda: forward(model, lr),
        "torch.export": exported(folder / "x4.pt2", lr),
        "ONNX Runtime": session(folder / "x4.onnx", lr.numpy(), options.threads),
        "ONNX Runtime, half": session(folder / "x4-half.onnx", lr.numpy().astype(np.float16), options.threads),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            taken, _ = timed(run)
            if number:  # the first round warms up
                times[name].append(taken)
    print(f"\nLR {options.size}×{options.size}, {options.threads} thread(s), medians of {options.rounds} rounds")
    print(f"{'program':>22} {'s':>8} {'of torch':>9} {'CPU s':>8} {'of torch':>9}")
    for name, values in times.items():
        columns = []
        for kind in (0, 1):
            ratios = [value[kind] / base[kind] for value, base in zip(values, times["torch"], strict=True)]
            columns += [f"{statistics.median(v[kind] for v in values):8.3f} {statistics.median(ratios):9.2f}"]
        print(f"{name:>22} {' '.join(columns)}")


def timed(work: Callable[[], Result]) -> tuple[tuple[float, float], Result]:
    """Return wall and CPU seconds of a call, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


@torch.inference_mode()
def forward(model: torch.nn.Module, lr: torch.Tensor) -> None:
    model(lr)


def exported(path: Path, lr: torch.Tensor) -> Callable[[], None]:
    module = torch.export.load(path).module()
    return lambda: forward(module, lr)


def session(path: Path, lr: np.ndarray, threads: int) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    program = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: program.run(None, {"lr": lr})


if __name__ == "__main__":
    main()
