"""Benchmark of the share of a training that its validation takes, at the settings of the paper.

    python benchmarks/validation_share.py                          three minutes on a CPU core
    python benchmarks/validation_share.py --images 24 --hr 1200x900

A training step of +experiment=realsr_x4 and the validation of one image are measured in Lightning's Trainer: forward
pass, assembly of the image and of all leaves, PSNR of all and SSIM. The share of a whole training follows from its
settings and from the number of pairs and images, which are arguments. Not included, since they are the same for any
number of images: checkpoints, two panels, and the workers, which read the images beside the forward passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import speed
import torch
from gauges import Reading
from hydra import compose, initialize_config_dir

from d2csr.commands.base import config_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500, help="pairs of the training set (default: 500)")
    parser.add_argument("--images", type=int, default=100, help="validation images (default: 100)")
    parser.add_argument("--hr", default="1000x800", help="their size, width x height (default: 1000x800)")
    parser.add_argument("--mode", default="alternating", choices=["alternating", "joint"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", default="runs/bench/validation_share.json", help="also write the numbers here")
    arguments = parser.parse_args()
    speed._quieten()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", ["+experiment=realsr_x4"])
    width, height = (int(side) // cfg.scale for side in arguments.hr.split("x"))
    step, image = _measure(arguments, cfg, width, height)
    steps = arguments.pairs * cfg.data.patches_per_image // cfg.data.batch_size * cfg.trainer.check_val_every_n_epoch
    share = arguments.images * image / (arguments.images * image + steps * step)
    print(
        f"\nA step takes {step:.2f} s (median), the validation of an image of {arguments.hr} {image:.2f} s.\n"
        f"{steps:,} steps from one validation to the next take {steps * step:,.0f} s, {arguments.images} images "
        f"{arguments.images * image:,.0f} s: {share:.1%} of the training."
    )
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        numbers = {"step": step, "image": image, "steps": steps, "share": share}
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), **numbers}, indent=2) + "\n")


def _measure(arguments: argparse.Namespace, cfg: Any, width: int, height: int) -> tuple[float, float]:
    """Return the seconds of a training step and of a validation image, in turns."""
    device, scale = torch.device(arguments.device), cfg.scale
    network = {"scale": scale, "features": 64, "branching": [2, 2], "fusion_features": 64}
    task = speed._task(arguments.mode, network, {})
    patches = _batch(cfg.data.batch_size, cfg.data.patch_size, cfg.data.patch_size, scale)
    whole = _batch(1, height, width, scale)
    steps: list[Reading] = []
    images: list[Reading] = []
    chunk = (None, "time")  # one to warm up
    for _ in range(arguments.rounds):
        for readings, run, batch in (
            (steps, "fit", patches),
            (images, "validate", whole),
        ):
            stopwatch = speed._Stopwatch(speed._gauges(device, readings), chunk)
            trainer = speed._trainer(device, "32-true", stopwatch)
            quiet = {"verbose": False} if run == "validate" else {}
            getattr(trainer, run)(task, speed._loader(batch, len(chunk)), **quiet)
    return tuple(statistics.median(reading.seconds for reading in readings) for readings in (steps, images))


def _batch(size: int, height: int, width: int, scale: int) -> dict[str, torch.Tensor]:
    return {"lr": torch.rand(size, 3, height, width), "hr": torch.rand(size, 3, scale * height, scale * width)}


if __name__ == "__main__":
    main()
