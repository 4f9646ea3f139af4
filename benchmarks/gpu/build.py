"""Networks, tasks, trainers and data of the GPU benchmark, from the shipped configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from benchmarks.gpu.bench import Bench, synchronize
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from d2csr.commands.base import config_dir
from d2csr.data.datamodule import PairDataModule
from d2csr.demo.demo_pairs import PHOTOS, read_photo
from d2csr.training import D2CSRTask, build_trainer

MODES = ("alternating", "joint", "sequential")
# The precision of the trainer, and whether TF32 is allowed, by the name in the tables.
PRECISIONS = {
    "ieee": ("32-true", False),
    "tf32": ("32-true", True),
    "bf16": ("bf16-mixed", True),
    "fp16": ("16-mixed", True),
}
QUIET = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)
_TINY = {
    **{"scale": 2, "features": 8, "branching": [2, 2], "fusion_features": 8},
    "body": {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 2},
}


def network(bench: Bench) -> dict[str, Any]:
    """Return the arguments of the paper's network at ×4, or of a tiny one at ×2."""
    return dict(_TINY) if bench.tiny else {"scale": 4, "features": 64, "branching": [2, 2], "fusion_features": 64}


@cache
def _shipped(optimization: str, scale: int) -> Any:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [f"optimization={optimization}", f"scale={scale}"])
    OmegaConf.set_struct(cfg, False)  # bodies have arguments of their own
    return cfg


def make_task(optimization: str, settings: dict[str, Any], **options: Any) -> D2CSRTask:
    """Build a task from the shipped configuration, with the arguments of a network and further settings of its own."""
    torch.manual_seed(0)
    cfg = OmegaConf.merge(_shipped(optimization, settings["scale"]).model, {"network": settings, **options})
    if optimization == "sequential":
        cfg.divergence_epochs = options.get("divergence_epochs", 1)
    return instantiate(cfg, _convert_="all")


def make_trainer(bench: Bench, optimization: str, precision: str = "tf32", **settings: Any) -> pl.Trainer:
    """Build d2csr's Trainer, without logger and checkpoints unless the settings say otherwise."""
    kind, tf32 = PRECISIONS[precision]
    defaults = {"logger": False, "enable_checkpointing": False, "max_epochs": 1, "benchmark": True, "devices": 1}
    accelerator = "gpu" if bench.cuda else "cpu"
    return build_trainer(
        optimization=optimization,
        accelerator=accelerator,
        precision=kind,
        tf32=tf32,
        use_distributed_sampler=False,
        **{**QUIET, **defaults, **settings},
    )


def random_batch(bench: Bench, size: int, patch: int, scale: int) -> dict[str, Tensor]:
    """Return a batch of random images on the device."""
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(size, 3, patch, patch, generator=generator)
    hr = torch.rand(size, 3, scale * patch, scale * patch, generator=generator)
    return {"lr": lr.to(bench.device), "hr": hr.to(bench.device)}


def repeated(batch: dict[str, Tensor], times: int) -> DataLoader[Any]:
    """Return a loader of a batch that is on the device already."""
    return DataLoader([batch] * times, batch_size=None)


@contextmanager
def compiler(bench: Bench) -> Iterator[None]:
    """Let a tiny run trace the networks, but generate no code, which would take a minute and a C++ compiler."""
    import torch._dynamo

    torch._dynamo.reset()
    real = torch.compile
    if not bench.cuda:
        torch.compile = lambda model=None, **_: real(model, backend="eager")  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = real
        torch._dynamo.reset()


def graphs() -> int:
    """Return the number of graphs that torch.compile has compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


class Chronometer(Callback):
    """Times the first step, and unsynchronised steps after a warm-up; then it stops the training.

    Attributes:
        first: seconds of the first step.
        steps: number of timed steps.
        seconds: of one of them.
        peak: MB of tensors on the GPU at most during them; None on a CPU.
        reserved: MB that the allocator held at most; None on a CPU.
        graphs: graphs compiled up to the end of the warm-up, and during the timed steps.
    """

    def __init__(self, bench: Bench, warm_up: int, steps: int, at_most: float) -> None:
        self.bench, self.warm_up, self.steps, self.at_most = bench, warm_up, steps, at_most
        self.first = self.seconds = 0.0
        self.peak: float | None = None
        self.reserved: float | None = None
        self.graphs = (0, 0)
        self._batch = 0

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock of the first step, and of the last one before the timed steps."""
        if self._batch == 0:
            self._graphs = graphs()
        if self._batch in (0, self.warm_up - 1):
            self._start = self._now()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Read the clock; choose the number of steps that fit into the time."""
        self._batch += 1
        if self._batch == 1:
            self.first = self._now() - self._start
        if self._batch == self.warm_up:
            step = max(self._now() - self._start, 1e-6)
            self.steps = max(2, min(self.steps, int(self.at_most / step)))
            self.graphs = (graphs() - self._graphs, 0)
            if self.bench.cuda:
                torch.cuda.reset_peak_memory_stats()
            self._start = self._now()
        if self._batch == self.warm_up + self.steps:
            self.seconds = (self._now() - self._start) / self.steps
            self.graphs = (self.graphs[0], graphs() - self._graphs - self.graphs[0])
            if self.bench.cuda:
                self.peak = torch.cuda.max_memory_allocated() / 1e6
                self.reserved = torch.cuda.max_memory_reserved() / 1e6
            trainer.should_stop = True

    def _now(self) -> float:
        synchronize(self.bench.device)
        return time.perf_counter()


def time_steps(
    bench: Bench,
    optimization: str,
    precision: str,
    batch: dict[str, Tensor],
    *,
    compile: str | None = None,
    steps: int = 200,
    at_most: float = 4.0,
) -> Chronometer:
    """Time training steps of the network on one batch, by d2csr in Lightning's Trainer."""
    task = make_task(optimization, network(bench), compile=compile, divergence={"weight": 0.0})
    warm_up = 2 if bench.tiny else 4 if compile is None else 6
    chronometer = Chronometer(bench, warm_up, steps, at_most)
    trainer = make_trainer(bench, optimization, precision, callbacks=[chronometer])
    trainer.fit(task, repeated(batch, warm_up + steps))
    return chronometer


def make_pairs(bench: Bench, count: int, lr_size: tuple[int, int], scale: int) -> Path:
    """Write pairs of PNG images, made of the built-in photographs; return their list."""
    folder = bench.folder / f"pairs-x{scale}-{count}"
    listed = folder / "pairs.txt"
    if listed.is_file():
        return listed
    folder.mkdir(parents=True)
    height, width = (extent * scale for extent in lr_size)
    lines = []
    for number in range(count):
        photograph = _read(number % len(_NAMES))
        repeats = (-(-height // photograph.shape[0]), -(-width // photograph.shape[1]), 1)
        hr = np.roll(np.tile(photograph, repeats)[:height, :width], 37 * number, axis=1)
        image = Image.fromarray(hr)
        names = [folder / f"{number:03d}_{kind}.png" for kind in ("LR", "HR")]
        image.reduce(scale).save(names[0], compress_level=1)
        image.save(names[1], compress_level=1)
        lines.append(" ".join(map(str, names)))
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return listed


def make_data(bench: Bench, listed: Path, scale: int, **settings: Any) -> PairDataModule:
    """Return the data module of a list, with a cache of its own."""
    defaults = {"batch_size": 4, "patch_size": 96, "cache": "disk", "cache_dir": str(bench.folder / "cache")}
    return PairDataModule(scale=scale, train_list=str(listed), val_list=str(listed), **{**defaults, **settings})


def photograph_batches(bench: Bench, count: int, size: int, patch: int, scale: int) -> Sequence[dict[str, Tensor]]:
    """Return batches of patches from the built-in photographs and of their reduced versions, on the device."""
    random = np.random.default_rng(0)
    side = patch * scale
    pictures = [picture for picture in map(_read, range(len(_NAMES))) if min(picture.shape[:2]) > side]
    batches = []
    for _ in range(count):
        hr = np.empty((size, side, side, 3), np.float32)
        for place in hr:
            picture = pictures[random.integers(len(pictures))]
            top, left = (int(random.integers(extent - side)) for extent in picture.shape[:2])
            place[:] = picture[top : top + side, left : left + side] / 255
        target = torch.from_numpy(hr).permute(0, 3, 1, 2).contiguous().to(bench.device)
        batches.append({"lr": torch.nn.functional.avg_pool2d(target, scale), "hr": target})
    return batches


_NAMES = [name for names in PHOTOS.values() for name in names]
_read: Callable[[int], np.ndarray] = cache(lambda number: read_photo(_NAMES[number]))
