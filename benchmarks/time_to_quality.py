"""Benchmark of the time to a quality: a plain loop with the paper's recipe against ``+experiment=realsr_x4_fast``.

Both train the same small network at x2 (F = 16, two blocks in a body, 147,004 parameters) on the same patches of 16x16,
batches of 4, and are validated on the same images. The plain loop is that of ``plain.py``: alternating, float32, Adam,
and the schedules of the paper in proportion to the length of the training: the learning rate is halved after each
tenth, the divergence loss is active in a fifth of the epochs. Its length, 300 epochs of 10 steps, is one at which it
ends well above bicubic interpolation: after a third of it, it ends below, and a factor would say nothing. Its
learning rate is 3e-3, the best of 1e-3, 3e-3 and 6e-3 with seed 10, which is not among those of the results.

The recipe trains for a quarter of the epochs. The time to a quality is that until the validation PSNR with which the
plain loop of the same seed ends, without validations, in CPU seconds of one thread: they depend less on other processes
than wall-clock seconds, which the JSON file has too. Validation images are the middle 96x96 LR pixels, test images are
whole. Runs take turns. They are saved one by one: an interrupted benchmark continues with the missing runs.

On a GPU the seconds are those of the clock, read when the GPU has finished. Both train in float32 with TF32: the plain
loop with torch's settings, the recipe with those of ``trainer=gpu``. Scores are computed in IEEE float32.

    python benchmarks/photographs.py photographs --scale 2
    python benchmarks/time_to_quality.py data.list_dir=photographs            three seeds, 25 minutes on one core
    python benchmarks/time_to_quality.py --means data.list_dir=photographs    further parts of the recipe changed
    python benchmarks/time_to_quality.py --device cuda --recipe-only data.list_dir=photographs    on a GPU, in minutes
    python benchmarks/time_to_quality.py --seeds 10 --json rate.json data.list_dir=photographs model.optimizer.lr=6e-3
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from plain import PlainLoop
from quality_settings import BICUBIC, GROWING, PLAIN, RECIPE, changes, configuration, means
from quality_table import table

from d2csr.data.batch import to_float
from d2csr.evaluation.baselines import bicubic
from d2csr.metrics import psnr
from d2csr.precision import computing_in
from d2csr.schedules import DivergenceWeightSchedule

WINDOW = 96  # side of the part of each validation image, in LR pixels


def main() -> None:
    arguments = _arguments()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    file, clock = Path(arguments.json), "wall" if arguments.device == "cuda" else "cpu"
    runs = _earlier_runs(file, arguments)
    epochs, device = round(arguments.epochs * arguments.share), torch.device(arguments.device)
    changed = {RECIPE: []} if arguments.recipe_only else changes(epochs)
    first, more = {PLAIN: [], **changed}, means(epochs) if arguments.means else {}
    todo = [(0, BICUBIC), *itertools.product(arguments.seeds, first), *itertools.product(arguments.seeds, more)]
    missing = [place for place in todo if place not in [(run["seed"], run["name"]) for run in runs]]
    if missing and device.type == "cuda" and not arguments.show:
        _warm_up(arguments, device)
    for seed, name in [] if arguments.show else missing:
        cfg = configuration(name, seed, arguments, (first | more).get(name, []))
        run = _run(name, cfg, arguments.epochs, device)
        runs.append({"name": name, "seed": seed, **run})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"arguments": vars(arguments), "runs": runs}, indent=2) + "\n")
        print(f"{name}, seed {seed}: {run['psnr'][-1]:.3f} dB after {run[clock][-1]:.1f} s", flush=True)
    print("\n".join(table(runs, clock)))


def _earlier_runs(file: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the runs of an interrupted benchmark with the same settings."""
    if not file.is_file():
        return []
    content = json.loads(file.read_text())
    earlier = {"device": "cpu", **content["arguments"]}
    for name in ("device", "epochs", "share", "overrides"):
        if earlier[name] != getattr(arguments, name) and not arguments.show:
            raise SystemExit(f"{file}: has runs with {name} {earlier[name]}; name another file by --json.")
    return content["runs"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=300, help="of the plain loop, a multiple of 20")
    parser.add_argument("--share", type=float, default=0.25, help="epochs of the recipe, as a share of those")
    parser.add_argument(
        "--recipe-only", action="store_true", help="the plain loop and the recipe, without changes of it"
    )
    parser.add_argument("--means", action="store_true", help="also the recipe with each of its parts changed")
    parser.add_argument("--core", type=int, help="use this core of the processor alone")
    parser.add_argument("--json", default="runs/bench/time_to_quality.json", help="where the results are kept")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("overrides", nargs="*", help="further settings of d2csr-train, of both")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not (torch.cuda.is_available() or arguments.show):
        parser.error("--device cuda: CUDA is not available here.")
    return arguments


def _warm_up(arguments: argparse.Namespace, device: torch.device) -> None:
    """Train both for a few epochs: on a GPU the first call of each kernel takes long."""
    short = argparse.Namespace(**{**vars(arguments), "epochs": 20})
    for name in (PLAIN, RECIPE):
        _run(name, configuration(name, 0, short, []), short.epochs, device)


def _run(name: str, cfg: Any, epochs: int, device: torch.device) -> dict[str, Any]:
    """Train once; return the time and the PSNR at each validation, and the PSNR on the test images."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = instantiate(cfg.data, _convert_="all")
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    clock = Clock(data, device)
    if name == BICUBIC:
        network = _Bicubic(data.scale)
        clock.validate(network, 0)
    elif name == PLAIN:
        network = _train_plain(cfg, epochs, data, clock, device)
    else:
        network = _train_recipe(cfg, data, clock, GROWING.get(name, [])).to(device)
    return {**vars(clock.curve), "test": mean_psnr(network, data.test_dataloader(), device)}


class _Bicubic:
    """Bicubic interpolation in the place of a network."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, lr: torch.Tensor) -> torch.Tensor:
        return bicubic(lr, self.scale)


class Clock:
    """Wall-clock and CPU seconds of a training without its validations, and the PSNR of these."""

    def __init__(self, data: Any, device: torch.device) -> None:
        self.device = device
        self.curve = argparse.Namespace(epoch=[], wall=[], cpu=[], psnr=[])
        batches = (_middle(batch, data.scale) for batch in data.val_dataloader())
        self._batches = [on_device(batch, device) for batch in batches]
        self._spent = 0.0, 0.0

    def start(self) -> None:
        """Continue."""
        self._wait()
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Pause."""
        self._wait()
        wall, cpu = self._since
        self._spent = self._spent[0] + time.perf_counter() - wall, self._spent[1] + time.process_time() - cpu

    def validate(self, network: Any, epoch: int) -> None:
        """Add the PSNR of a network at the present time; the clock has been stopped."""
        values = (epoch, *self._spent, mean_psnr(network, self._batches, self.device))
        for key, item in zip(("epoch", "wall", "cpu", "psnr"), values, strict=True):
            getattr(self.curve, key).append(item)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _middle(batch: Any, scale: int) -> dict[str, torch.Tensor]:
    """Return the middle of the LR image, of at most 96 pixels a side, and the same part of the HR image."""
    starts = [max(0, (extent - WINDOW) // 2) for extent in batch["lr"].shape[2:]]
    return {
        name: batch[name][(..., *(slice(factor * start, factor * (start + WINDOW)) for start in starts))]
        for name, factor in (("lr", 1), ("hr", scale))
    }


def on_device(batch: Any, device: torch.device) -> Any:
    """Return a batch of floats on a device, to which it is moved as bytes."""
    return to_float({name: value.to(device, non_blocking=True) for name, value in batch.items()})


def _train_plain(cfg: Any, epochs: int, data: Any, clock: Clock, device: torch.device) -> Any:
    torch.backends.cudnn.benchmark = False  # Lightning's trainers leave it on
    loader = data.train_dataloader()
    rate = cfg.model.optimizer.lr
    loop = PlainLoop(OmegaConf.to_container(cfg.model.network, resolve=True), str(device), lr=rate, seed=cfg.seed)
    tenth, period, active = epochs // 10, epochs // 20, max(1, epochs // 100)
    divergence = DivergenceWeightSchedule(2e-5, active, period, active, tenth, 0.5)
    clock.start()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        loop.weight = divergence(epoch)
        for optimizer in (loop.divergence_adam, loop.convergence_adam):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 ** (epoch // tenth)
        for batch in (on_device(batch, device) for batch in loader):
            loop.step(batch["lr"], batch["hr"])
        if (epoch + 1) % max(1, epochs // 60) == 0:
            clock.stop()
            clock.validate(loop.network, epoch + 1)
            clock.start()
    return loop.network


def _train_recipe(cfg: Any, data: Any, clock: Clock, patches: list[tuple[float, int]]) -> Any:
    task = instantiate(cfg.model, _convert_="all")
    options = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0}
    trainer = instantiate(cfg.trainer, callbacks=[_Watch(clock, patches)], **options, _convert_="all")
    trainer.fit(task, datamodule=data)
    return task.network.eval()


class _Watch(pl.Callback):
    """Callback that runs the clock, validates 25 times, and sets the size of the patches."""

    def __init__(self, clock: Clock, patches: list[tuple[float, int]]) -> None:
        self.clock, self.patches = clock, patches

    def on_train_start(self, *_: Any) -> None:
        self.clock.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, _: Any) -> None:
        for start, size in self.patches:
            if trainer.current_epoch >= start * trainer.max_epochs:
                trainer.train_dataloader.dataset.patch_size = size

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % max(1, trainer.max_epochs // 25) and epoch < trainer.max_epochs:
            return
        self.clock.stop()
        if task.average:
            task.average.on_validation_start(trainer, task)
        self.clock.validate(task.network, epoch)
        if task.average:
            task.average.on_validation_end(trainer, task)
        self.clock.start()


@torch.no_grad()
def mean_psnr(network: Any, batches: Any, device: torch.device) -> float:
    """Return the mean PSNR, protocol d2csr, of images N×3×H×W; the network is on the device."""
    with computing_in("32", device):
        pairs = (on_device(batch, device) for batch in batches)
        return statistics.mean(float(psnr(network(b["lr"]), b["hr"], scale=network.scale)) for b in pairs)


if __name__ == "__main__":
    main()
