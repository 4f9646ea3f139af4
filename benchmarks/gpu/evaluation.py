"""The commands after a training: ``d2csr-eval`` and ``d2csr-upscale`` on the device give the results of the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import make_pairs
from benchmarks.gpu.commands import arguments, last_lines, start, train_command
from PIL import Image

_SECONDS = 60
_WITHIN = 1e-3


def run(bench: Bench) -> None:
    run_dir = bench.folder / "to-evaluate"
    settings = ["optimization=joint", "trainer.max_steps=4", "model.ema_decay=0.9", "trainer.gradient_clip_val=1"]
    settings += ["data.cache=device"] + (["trainer.precision=bf16-mixed"] if bench.cuda else [])
    with _started(bench, {"train": train_command(*arguments(bench, run_dir, *settings))}) as processes:
        _wait(bench, processes, "train")
    image = make_pairs(bench, 1, (60, 80), 2).parent / "000_LR.png"
    devices = ("gpu", "cpu") if bench.cuda else ("cpu",)
    evals, upscales = {}, {}
    for name in devices:
        given = [f"ckpt={run_dir}", f"trainer={name}"]
        folder = f"hydra.run.dir={bench.folder / f'eval-{name}'}"
        evals[f"eval-{name}"] = _command("eval", *given, folder, "save=[sr,panels]", "data.num_workers=0")
        output = f"output={bench.folder / f'upscale-{name}'}"
        upscales[f"upscale-{name}"] = _command("upscale", *given, output, f"input={image}", "save=[sr,leaves,weights]")
    with _started(bench, evals | upscales) as processes:  # all at once: each needs seconds for its imports
        with bench.guard({}, "evaluation.eval"):
            _wait(bench, processes, *evals)
            scores = [_scores(bench.folder / name) for name in evals]
            off = max(abs(scores[0][key] - scores[-1][key]) for key in ("psnr", "ssim"))
            bench.judge_on_gpu("evaluation.eval", off < _WITHIN, f"{off:.1e} in the means of PSNR (dB) and SSIM")
        with bench.guard({}, "evaluation.upscale"):
            _wait(bench, processes, *upscales)
            folders = [bench.folder / name for name in upscales]
            levels = _levels(folders[0], folders[-1])
            bench.judge_on_gpu("evaluation.upscale", max(levels) <= 1, f"{max(levels)} levels in {len(levels)} images")


def _command(name: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", f"d2csr.commands.{name}", *overrides]


@contextmanager
def _started(bench: Bench, commands: dict[str, list[str]]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start commands, and end what still runs of them after the block."""
    processes = {name: start(bench, command, _log(bench, name)) for name, command in commands.items()}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()


def _wait(bench: Bench, processes: dict[str, subprocess.Popen[bytes]], *names: str) -> None:
    """Wait for the ends of commands; raise a RuntimeError if one fails."""
    for name in names:
        if processes[name].wait(bench.patience(_SECONDS)) != 0:
            raise RuntimeError(f"{name}: {last_lines(_log(bench, name))}")


def _log(bench: Bench, name: str) -> Path:
    return bench.folder / f"{name}.log"


def _scores(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["mean"]


def _levels(first: Path, second: Path) -> list[int]:
    """Return the largest difference of each image in two folders, in 8 bits; for weights, in the palette's index."""
    names = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    pairs = ((np.asarray(Image.open(folder / name)) for folder in (first, second)) for name in names)
    return [int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs]


PART = Part(
    "evaluation",
    55,
    {
        "evaluation.eval": "d2csr-eval gives the scores of the CPU within 0.001, with images and panels",
        "evaluation.upscale": "d2csr-upscale gives the pixels of the CPU within 1 of 255, also of leaves and weights",
    },
    run,
)
