"""Benchmark of the time to a quality: a plain loop with the paper's recipe against the recipe ``realsr_x4_fast``.

Both train the same small network at x4 on the same patches and are validated on the same images. The plain loop is that
of ``plain.py``: alternating, float32, Adam, both schedules in the paper's proportions to the length of the training (the
learning rate is halved after each tenth, the divergence loss is active in a fifth of the epochs). Its learning rate is
the best one of ``--rates`` at this length: the paper's 1e-4 is meant for 20,000 epochs and would be no opponent here.

The time is that until the validation PSNR with which the plain loop ends, without validations. Runs of both take turns,
each in a process of its own with one thread on one core. The table has CPU seconds, which depend less on other processes
than wall-clock seconds; both are in the JSON file. Each finished run is saved, and an interrupted benchmark continues.

    python benchmarks/time_to_quality.py                  three seeds of both: about 6 minutes of one core
    python benchmarks/time_to_quality.py --means          also the recipe without each of its parts, and with others
    python benchmarks/time_to_quality.py --data photographs data.list_dir=FOLDER
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# The network and the data of all runs. An epoch is 10 steps.
SETUP = [
    *("scale=4", "model.network.features=16", "model.network.fusion_features=16", "+model.network.body.groups=1"),
    *("+model.network.body.blocks=2", "+model.network.body.reduction=4", "threads=1", "trainer=cpu"),
    *("data.batch_size=4", "data.patch_size=16", "data.num_workers=0", "data.cache=ram"),
    *("trainer.enable_progress_bar=false", "data.augment=true"),
]
VAL=3
EPOCH = 10  # steps
PLAIN = "plain loop"


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        print(json.dumps(_work(json.loads(arguments.worker))))
        return
    runs = _load(arguments.json)
    for job in _jobs(arguments):
        if any(run["job"] == job for run in runs):
            continue
        run = _start(job, arguments.core)
        runs.append({"job": job, **run})
        _save(arguments.json, runs)
        print(f"{job['name']}, seed {job['seed']}: {run['psnr'][-1]:.3f} dB, test {run['test']:.3f} dB, "
              f"{run['cpu'][-1]:.1f} s", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("runs/bench/time_to_quality.json"))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--name", default=None)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    return parser.parse_args()


def _jobs(arguments) -> list[dict[str, Any]]:
    return [{"name": arguments.name or PLAIN, "seed": s, "epochs": arguments.epochs, "rate": arguments.rate,
             "overrides": arguments.overrides} for s in ([0] if arguments.seeds == 1 else range(arguments.seeds))]


def _start(job: dict[str, Any], core: int) -> dict[str, Any]:
    """Run a job in a process of its own on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {core}) if core >= 0 else None)
    return json.loads(done.stdout.splitlines()[-1])


def _load(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file.is_file() else []


def _save(file: Path, runs: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(runs) + "\n")


class Clock:
    """Wall-clock and CPU seconds of a training without its validations, and the scores of these."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.psnr: list[float] = []
        self._before = 0.0, 0.0
        self.resume()

    def resume(self) -> None:
        self._since = time.perf_counter(), time.process_time()

    def pause(self) -> None:
        now = time.perf_counter(), time.process_time()
        self._before = tuple(b + n - s for b, n, s in zip(self._before, now, self._since, strict=True))

    def record(self, psnr: float) -> None:
        self.wall.append(self._before[0])
        self.cpu.append(self._before[1])
        self.psnr.append(psnr)


def _work(job: dict[str, Any]) -> dict[str, Any]:
    import pytorch_lightning as pl
    import torch
    from hydra import compose, initialize_config_dir

    from d2csr.commands.app import config_dir

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import warnings
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [*SETUP, f"seed={job['seed']}", f"trainer.max_epochs={job['epochs']}", *job["overrides"]])
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    clock, network, test = (_plain if job["name"].startswith(PLAIN) else _recipe)(cfg, job)
    return {"wall": clock.wall, "cpu": clock.cpu, "psnr": clock.psnr, "test": test}


def _data(cfg: Any) -> Any:
    from hydra.utils import instantiate

    data = instantiate(cfg.data, _convert_="all")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def _psnr(network: Any, loader: Any, limit=None) -> float:
    import torch

    from d2csr.data.batch import to_float
    from d2csr.metrics import psnr

    with torch.no_grad():
        batches = map(to_float, itertools.islice(loader, limit))
        return statistics.mean(float(psnr(network(b["lr"]), b["hr"], scale=network.scale)) for b in batches)


def _plain(cfg: Any, job: dict[str, Any]) -> tuple[Clock, Any, float]:
    import torch
    from omegaconf import OmegaConf
    from plain import PlainLoop

    from d2csr.data.batch import to_float
    from d2csr.schedules import DivergenceWeightSchedule

    data = _data(cfg)
    epochs = job["epochs"]
    loop = PlainLoop(OmegaConf.to_container(cfg.model.network, resolve=True), "cpu", detached="detached" in job["name"], lr=job["rate"], seed=job["seed"])
    divergence = DivergenceWeightSchedule(2e-5, epochs // 100, epochs // 20, epochs // 100, epochs // 10, 0.5)
    loader = data.train_dataloader()
    clock = Clock()
    clock.resume()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        loop.weight = divergence(epoch)
        for adam in (loop.divergence_adam, loop.convergence_adam):
            for group in adam.param_groups:
                group["lr"] = job["rate"] * 0.5 ** (epoch // (epochs // 10))
        for batch in loader:
            batch = to_float(batch)
            loop.step(batch["lr"], batch["hr"])
        if (epoch + 1) % (epochs // 4) == 0:
            clock.pause()
            clock.record(_psnr(loop.network, data.val_dataloader(), VAL))
            clock.resume()
    return clock, loop.network, _psnr(loop.network, data.test_dataloader())


def _recipe(cfg: Any, job: dict[str, Any]) -> tuple[Clock, Any, float]:
    import pytorch_lightning as pl
    from hydra.utils import instantiate

    class Watch(pl.Callback):
        def __init__(self) -> None:
            self.clock = Clock()

        def on_train_start(self, *_: Any) -> None:
            self.clock.resume()

        def on_validation_start(self, *_: Any) -> None:
            self.clock.pause()

        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            self.clock.record(float(trainer.callback_metrics["val/psnr"]))
            self.clock.resume()

    task, data, watch = instantiate(cfg.model, _convert_="all"), instantiate(cfg.data, _convert_="all"), Watch()
    options = {"logger": False, "enable_checkpointing": False, "_convert_": "all", "check_val_every_n_epoch": max(1, job["epochs"] // 12), "limit_val_batches": VAL}
    instantiate(cfg.trainer, callbacks=[watch], **options).fit(task, datamodule=data)
    return watch.clock, task.network, _psnr(task.network.eval(), _data(cfg).test_dataloader())


if __name__ == "__main__":
    main()
