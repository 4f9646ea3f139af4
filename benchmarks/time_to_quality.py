"""Benchmark of the time to a quality: a plain loop with the paper's recipe against ``+experiment=realsr_x4_fast``.

Both train the same small network at x4 on the same patches, and are validated on the same images. The plain loop is
that of ``plain.py``: alternating, float32, Adam, and the schedules of the paper in proportion to the length of the
training: the learning rate is halved after each tenth, the divergence loss is active in a fifth of the epochs. Its
learning rate is 3e-3, the best of those tried at this length: the paper's 1e-4 is meant for 20,000 epochs.

The time to a quality is that until the validation PSNR with which the plain loop of the same seed ends, without
validations, in CPU seconds of one thread: they depend less on other processes than wall-clock seconds, which the JSON
file has too. Runs take turns. They are saved one by one: an interrupted benchmark continues with the missing runs.

    python benchmarks/photographs.py photographs --scale 4
    python benchmarks/time_to_quality.py data.list_dir=photographs            three seeds of both
    python benchmarks/time_to_quality.py data.list_dir=photographs --means    also with parts of the recipe changed
    python benchmarks/time_to_quality.py data=demo data.patches_per_image=8   on the photographs of the demo
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
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from plain import PlainLoop

from d2csr.commands.app import config_dir
from d2csr.data.batch import to_float
from d2csr.metrics import psnr
from d2csr.schedules import DivergenceWeightSchedule

PLAIN = "plain loop"
RECIPE = "realsr_x4_fast"
RATE = 3e-3  # of both
# The network, and the batches: the 41 training images of the photographs are 10 steps an epoch.
SMALL = [
    *(
        "scale=4",
        "data=photographs",
        "data.patches_per_image=1",
        "data.batch_size=4",
        "data.patch_size=16",
        "data.cache=ram",
        "data.num_workers=0",
    ),
    *("model.network.features=16", "model.network.fusion_features=16", "+model.network.body.groups=1"),
    *("+model.network.body.blocks=1", "+model.network.body.reduction=4", "trainer=cpu", "expected_batch=null"),
    *("trainer.enable_progress_bar=false", f"model.optimizer.lr={RATE}"),
]
# The recipe with one part changed.
MEANS = {
    "alternating": ["optimization=alternating"],
    "PyTorch's initial weights": ["model.init=torch"],
    "step decay": [
        *("model.scheduler._target_=d2csr.schedules.StepDecay", "+model.scheduler.decay_every=1"),
        *("+model.scheduler.decay_factor=0.5", "~model.scheduler.warmup", "~model.scheduler.total"),
        "~model.scheduler.minimum",
    ],
    "Adam": ["model.optimizer._target_=torch.optim.Adam", "model.optimizer.weight_decay=1e-8"],
    "no moving average": ["model.ema_decay=null"],
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "divergence loss": ["model.divergence.weight=2e-5", "model.divergence.after=-1"],
    "batch 8": ["data.batch_size=8"],
    "batch 2": ["data.batch_size=2"],
    "rate 6e-3": ["model.optimizer.lr=6e-3"],
}
VALIDATION_IMAGES = 3


def main() -> None:
    arguments = _arguments()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    file = Path(arguments.json)
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.is_file() else []
    means = MEANS if arguments.means else {}
    for seed, name in itertools.product(arguments.seeds, (PLAIN, RECIPE, *means)):
        if arguments.show or any((run["name"], run["seed"]) == (name, seed) for run in runs):
            continue
        run = _run(name, seed, arguments)
        runs.append({"name": name, "seed": seed, **run})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"arguments": vars(arguments), "runs": runs}, indent=2) + "\n")
        print(f"{name}, seed {seed}: {run['psnr'][-1]:.3f} dB after {run['cpu'][-1]:.1f} s", flush=True)
    _print_table(runs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40, help="of the plain loop, a multiple of 20")
    parser.add_argument("--share", type=float, default=0.25, help="epochs of the recipe, as a share of those")
    parser.add_argument("--means", action="store_true", help="also the recipe with each of its parts changed")
    parser.add_argument("--core", type=int, help="use this core of the processor alone")
    parser.add_argument("--json", default="runs/bench/time_to_quality.json", help="where the results are kept")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("overrides", nargs="*", help="further settings of d2csr-train, of both")
    return parser.parse_args()


def _run(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once; return the time and the PSNR at each validation, and the PSNR on the test images."""
    small = [*SMALL, f"seed={seed}", *arguments.overrides]
    if name != PLAIN:
        epochs = round(arguments.epochs * arguments.share)
        # In proportion to the length, which is a hundredth of the experiment's and less.
        lengths = ["model.scheduler.warmup=1", "model.ema_decay=0.95", f"trainer.max_epochs={epochs}"]
        often = "trainer.check_val_every_n_epoch=1"
        small = [f"+experiment={RECIPE}", *small, *lengths, often, *MEANS.get(name, [])]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", small)
    pl.seed_everything(seed, workers=True, verbose=False)
    clock = Clock()
    network = _train_plain(cfg, arguments.epochs, clock) if name == PLAIN else _train_recipe(cfg, clock)
    data = instantiate(cfg.data, _convert_="all")
    data.setup("test")
    return {**vars(clock.curve), "test": _psnr(network, data.test_dataloader())}


class Clock:
    """Wall-clock and CPU seconds of a training without its validations, and the PSNR of these."""

    def __init__(self) -> None:
        self.curve = argparse.Namespace(wall=[], cpu=[], psnr=[])
        self._spent = 0.0, 0.0

    def start(self) -> None:
        """Continue."""
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Pause."""
        wall, cpu = self._since
        self._spent = self._spent[0] + time.perf_counter() - wall, self._spent[1] + time.process_time() - cpu

    def record(self, value: float) -> None:
        """Add a PSNR at the present time."""
        for key, item in zip(("wall", "cpu", "psnr"), (*self._spent, value), strict=True):
            getattr(self.curve, key).append(item)


def _train_plain(cfg: Any, epochs: int, clock: Clock) -> Any:
    data = instantiate(cfg.data, _convert_="all")
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    loop = PlainLoop(OmegaConf.to_container(cfg.model.network, resolve=True), "cpu", lr=RATE, seed=cfg.seed)
    tenth, period, active = epochs // 10, epochs // 20, max(1, epochs // 100)
    divergence = DivergenceWeightSchedule(2e-5, active, period, active, tenth, 0.5)
    clock.start()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        loop.weight = divergence(epoch)
        for optimizer in (loop.divergence_adam, loop.convergence_adam):
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 ** (epoch // tenth)
        for batch in map(to_float, loader):
            loop.step(batch["lr"], batch["hr"])
        if (epoch + 1) % (epochs // 4) == 0:
            clock.stop()
            clock.record(_psnr(loop.network, data.val_dataloader(), VALIDATION_IMAGES))
            clock.start()
    return loop.network


def _train_recipe(cfg: Any, clock: Clock) -> Any:
    task, data = (instantiate(part, _convert_="all") for part in (cfg.model, cfg.data))
    options = {"logger": False, "enable_checkpointing": False, "limit_val_batches": VALIDATION_IMAGES}
    trainer = instantiate(cfg.trainer, callbacks=[_Watch(clock)], **options, _convert_="all")
    trainer.fit(task, datamodule=data)
    return task.network.eval()


class _Watch(pl.Callback):
    """Callback that runs the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, *_: Any) -> None:
        self.clock.start()

    def on_validation_start(self, *_: Any) -> None:
        self.clock.stop()

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.clock.record(float(trainer.callback_metrics["val/psnr"]))
        self.clock.start()


@torch.no_grad()
def _psnr(network: Any, loader: Any, images: int | None = None) -> float:
    batches = map(to_float, itertools.islice(loader, images))
    return statistics.mean(float(psnr(network(b["lr"]), b["hr"], scale=network.scale)) for b in batches)


def _print_table(runs: list[dict[str, Any]]) -> None:
    """Print a row for each candidate: means over the seeds."""
    plain = {run["seed"]: run for run in runs if run["name"] == PLAIN}
    print("| | validation, dB | test, dB | time, s | to the plain loop's end, s | times sooner |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in dict.fromkeys(run["name"] for run in runs):
        own = [run for run in runs if run["name"] == name]
        reached = [_seconds_to(plain[run["seed"]]["psnr"][-1], run) for run in own]
        mean = [statistics.mean(values) for values in ([r["psnr"][-1] for r in own], [r["test"] for r in own])]
        total, ends = statistics.mean(run["cpu"][-1] for run in own), "not reached"
        ratio = "" if None in reached else _ratios(own, reached, plain)
        if None not in reached:
            ends = f"{statistics.mean(reached):.1f}"
        print(f"| {name} ({len(own)}) | {mean[0]:.3f} | {mean[1]:.3f} | {total:.1f} | {ends} | {ratio} |")


def _ratios(own: list[dict[str, Any]], reached: list[Any], plain: dict[int, dict[str, Any]]) -> str:
    found = [plain[run["seed"]]["cpu"][-1] / seconds for run, seconds in zip(own, reached, strict=True)]
    return f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"


def _seconds_to(target: float, run: dict[str, Any]) -> float | None:
    """Return the CPU seconds until the first validation that reached a PSNR; None if there is none."""
    return next((cpu for cpu, value in zip(run["cpu"], run["psnr"], strict=True) if value >= target), None)


if __name__ == "__main__":
    main()
