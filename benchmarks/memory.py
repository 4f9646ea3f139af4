"""Benchmark of the plain forward and of strip inference: peak memory and time, float32 on the CPU, the paper's network.

Each measurement runs in a process of its own, since the peak of a process never decreases. Peaks are resident memory of
the whole process, Python and PyTorch included. Weights and images are random, which changes neither memory nor time.

    python benchmarks/memory.py --quick
    python benchmarks/memory.py --sizes 256x256 1000x700 2800x1800 --plain-up-to 0.75 --json memory.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_SIZES = ["256x256", "500x350", "1000x700", "2800x1800"]
_QUICK_SIZES = ["64x48", "128x96"]
_BLOCK = 1 << 24  # values compared at a time


def main() -> None:
    arguments = _arguments()
    if arguments.measure:
        print(json.dumps(_measure(arguments, *arguments.measure)))
        return
    rows = []
    sizes = arguments.sizes or (_QUICK_SIZES if arguments.quick else _SIZES)
    _print_header()
    for size in sizes:
        width, height = map(int, size.split("x"))
        rows.append(_row(arguments, width, height))
        _print_row(rows[-1])
        if arguments.json:  # after every size: the large ones take long
            Path(arguments.json).write_text(json.dumps({"scale": arguments.scale, "rows": rows}, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help=f"LR sizes (default: {' '.join(_SIZES)})")
    parser.add_argument("--quick", action="store_true", help=f"small sizes ({' '.join(_QUICK_SIZES)})")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--memory", default="auto", help="the budget of strip inference")
    parser.add_argument("--precision", default="32", choices=["32", "bf16", "16"])
    parser.add_argument(
        "--plain-up-to", type=float, default=0.75, metavar="MEGAPIXELS", help="of LR, for the plain forward"
    )
    parser.add_argument("--json", help="also write the table here")
    parser.add_argument("--measure", nargs=3, metavar=("KIND", "WxH", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _row(arguments: argparse.Namespace, width: int, height: int) -> dict[str, Any]:
    row: dict[str, Any] = {"lr": [width, height], "plain": None, "strips": None, "difference": None}
    with tempfile.TemporaryDirectory() as folder:
        kinds = ["plain", "strips"] if width * height <= arguments.plain_up_to * 1e6 else ["strips"]
        files = [f"{folder}/{kind}.npy" for kind in kinds]
        for kind, file in zip(kinds, files, strict=True):
            options = [f"--{name}={getattr(arguments, name)}" for name in ("scale", "memory", "precision")]
            command = [sys.executable, __file__, "--measure", kind, f"{width}x{height}", file, *options]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            row[kind] = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.returncode}
        if all(Path(file).is_file() for file in files) and len(files) == 2:
            row["difference"] = _largest_difference(*files)
    return row


def _measure(arguments: argparse.Namespace, kind: str, size: str, file: str) -> dict[str, float]:
    """Run one inference in this process, and save its result for a comparison."""
    import torch

    from d2csr.inference import Inference
    from d2csr.models import D2CSR

    width, height = map(int, size.split("x"))
    torch.manual_seed(0)
    model = D2CSR(arguments.scale, features=64, branching=[2, 2], fusion_features=64).eval()
    lr = torch.rand(1, 3, height, width)
    inference = Inference(memory=arguments.memory, precision=arguments.precision)
    before = _peak()
    start = time.perf_counter()
    with torch.inference_mode():
        sr = model(lr) if kind == "plain" else inference(model, lr)
    seconds = time.perf_counter() - start
    peak = _peak()
    if width * height <= arguments.plain_up_to * 1e6:
        np.save(file, sr.numpy())
    return {"peak_gb": peak, "before_gb": before, "seconds": seconds, "threads": torch.get_num_threads()}


def _peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _largest_difference(first: str, second: str) -> float:
    """Return the largest absolute difference, divided by the range of the first."""
    a, b = (np.load(file, mmap_mode="r").reshape(-1) for file in (first, second))
    blocks = [slice(start, start + _BLOCK) for start in range(0, a.size, _BLOCK)]
    spread = max(a[block].max() for block in blocks) - min(a[block].min() for block in blocks)
    return float(max(np.abs(a[block] - b[block]).max() for block in blocks) / spread)


def _print_header() -> None:
    print(
        f"{'LR size':>12}{'plain GB':>10}{'strips GB':>11}{'plain s':>9}{'strips s':>10}{'difference':>12}", flush=True
    )


def _print_row(row: dict[str, Any]) -> None:
    def entry(kind: str, name: str, form: str) -> str:
        value = (row[kind] or {}).get(name)
        return "–" if value is None else format(value, form)

    difference = "–" if row["difference"] is None else f"{row['difference']:.1e}"
    print(
        f"{'×'.join(map(str, row['lr'])):>12}{entry('plain', 'peak_gb', '.2f'):>10}"
        f"{entry('strips', 'peak_gb', '.2f'):>11}{entry('plain', 'seconds', '.0f'):>9}"
        f"{entry('strips', 'seconds', '.0f'):>10}{difference:>12}",
        flush=True,
    )


if __name__ == "__main__":
    main()
