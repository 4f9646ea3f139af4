"""The commands after a training: ``d2csr-eval`` and ``d2csr-upscale`` on the device give the results of the CPU."""

from __future__ import annotations

import json
import sys
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
    _run_all(bench, {"train": train_command(*arguments(bench, run_dir, *settings))})
    image = make_pairs(bench, 1, (60, 80), 2).parent / "000_LR.png"
    devices = ("gpu", "cpu") if bench.cuda else ("cpu",)
    evals, upscales = {}, {}
    for name in devices:
        given = [f"ckpt={run_dir}", f"trainer={name}"]
        folder = f"hydra.run.dir={bench.folder / f'eval-{name}'}"
        evals[f"eval-{name}"] = _command("eval", *given, folder, "save=[sr,panels]", "data.num_workers=0")
        output = f"output={bench.folder / f'upscale-{name}'}"
        upscales[f"upscale-{name}"] = _command("upscale", *given, output, f"input={image}", "save=[sr,leaves,weights]")
    with bench.guard({}, "evaluation.eval"):
        _run_all(bench, evals)
        scores = [_scores(bench.folder / name) for name in evals]
        off = max(abs(scores[0][key] - scores[-1][key]) for key in ("psnr", "ssim"))
        bench.judge_on_gpu("evaluation.eval", off < _WITHIN, f"{off:.1e} in the means of PSNR (dB) and SSIM")
    with bench.guard({}, "evaluation.upscale"):
        _run_all(bench, upscales)
        folders = [bench.folder / name for name in upscales]
        levels = _levels(folders[0], folders[-1])
        bench.judge_on_gpu("evaluation.upscale", max(levels) <= 1, f"{max(levels)} levels in {len(levels)} images")


def _command(name: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", f"d2csr.commands.{name}", *overrides]


def _run_all(bench: Bench, commands: dict[str, list[str]]) -> None:
    """Run commands at the same time; raise a RuntimeError if one fails."""
    logs = {name: bench.folder / f"{name}.log" for name in commands}
    processes = {name: start(bench, command, logs[name]) for name, command in commands.items()}
    try:
        for name, process in processes.items():
            if process.wait(bench.patience(_SECONDS)) != 0:
                raise RuntimeError(f"{name}: {last_lines(logs[name])}")
    finally:
        for process in processes.values():
            process.kill()


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
