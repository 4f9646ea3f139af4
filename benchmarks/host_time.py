"""Benchmark of the host time of a training step outside of the network, for which a fast GPU may have to wait.

    python benchmarks/host_time.py                             all modes, three rounds, two minutes
    python benchmarks/host_time.py model.ema_decay=0.999       further settings of d2csr-train

The network of the paper at ×4, with its 469 tensors, but of 4 features and on one LR patch of 4×4. It is trained by
``d2csr-train``, by Lightning's Trainer with nothing but losses and optimizers, and by a loop without Lightning, which
take turns. All use fused Adams. The CPU time of the main thread is measured from one step to the next, and divided:

* network: forward and backward passes, losses, and the release of their graphs;
* optimizer: the steps of Adam, and the release of the gradients;
* batch: until the next batch is there;
* rest: Lightning, callbacks, loggers, the state to resume from, the progress bar.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loops.fetchers import _PrefetchDataFetcher
from torch import Tensor
from torch.optim import Adam, Optimizer

from d2csr.commands import train
from d2csr.models import D2CSR, ConvergenceNetwork, DivergenceNetwork
from d2csr.torch_internals import skip_labels
from d2csr.training import task
from d2csr.training.task import D2CSRTask

STEPS, SKIPPED = 150, 30  # skipped: the first of the steps
BODY = {"name": "rcab", "groups": 2, "blocks": 4, "reduction": 4}
SETTINGS = [
    *("+experiment=demo", "trainer=cpu", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1000"),
    *("scale=4", "data.batch_size=1", "data.patch_size=4", f"data.patches_per_image={STEPS // 5}"),
    *("model.network.features=4", "model.network.fusion_features=4", "model.network.body.groups=2"),
    *("model.network.body.blocks=4", "+model.network.body.reduction=4"),
]
MODES = ["alternating", "joint", "sequential"]
PARTS = ("network", "optimizer", "batch")


class Clock:
    """CPU time of this thread, in all and by part."""

    def __init__(self) -> None:
        self.parts = dict.fromkeys([*PARTS, "rest"], 0.0)
        self.marks: list[list[float]] = []
        self._inner = 0.0  # time of timed functions within the present one
        self._losses: list[Tensor] = []  # of the present step: they hold the graphs

    def mark(self) -> None:
        """Release the graphs of the last step, and begin a step."""
        self.timed("network", self._losses.clear)()
        self.marks.append([time.thread_time(), *(self.parts[name] for name in PARTS)])

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Add the time of a function to a part, without that of timed functions within it."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            outer, self._inner, start = self._inner, 0.0, time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                self.parts[part] += spent - self._inner
                self._inner = outer + spent

        return wrapper

    def optimizer_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Time an optimizer's step without its closure, which Lightning calls for nearly everything else."""
        timed = self.timed("optimizer", step)

        def wrapper(optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
            return timed(optimizer, closure=closure and self.timed("rest", closure))

        return wrapper

    def backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """Time a backward pass, and hold its graph until the step ends."""
        timed = self.timed("network", backward)

        def wrapper(loss: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._losses.append(loss)
            return timed(loss, *args, **kwargs)

        return wrapper

    def skip_labels(self, optimizer: Optimizer) -> None:
        """Time an optimizer's own release of the gradients, which d2csr-train gives it."""
        skip_labels(optimizer)
        optimizer.zero_grad = self.timed("optimizer", optimizer.zero_grad)  # type: ignore[method-assign]

    def medians(self) -> dict[str, float]:
        """Return milliseconds a step, by part."""
        gaps = [[y - x for x, y in zip(*pair, strict=True)] for pair in itertools.pairwise(self.marks[SKIPPED:])]
        columns = {"rest": [gap[0] - sum(gap[1:]) for gap in gaps]}
        columns |= {name: [gap[number] for gap in gaps] for number, name in enumerate(PARTS, 1)}
        return {name: 1e3 * statistics.median(values) for name, values in columns.items()}


@contextmanager
def measured() -> Iterator[Clock]:
    """Time the parts of all steps within this context."""
    clock = Clock()
    targets = [
        (DivergenceNetwork, "forward", "network"),
        (ConvergenceNetwork, "forward", "network"),
        (D2CSRTask, "_loss", "network"),
        (F, "mse_loss", "network"),
        (Optimizer, "zero_grad", "optimizer"),
        (_PrefetchDataFetcher, "__next__", "batch"),
    ]
    with ExitStack() as stack:
        for owner, name, part in targets:
            stack.enter_context(mock.patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        stack.enter_context(mock.patch.object(Tensor, "backward", clock.backward(Tensor.backward)))
        stack.enter_context(mock.patch.object(Adam, "step", clock.optimizer_step(Adam.step)))
        stack.enter_context(mock.patch.object(task, "skip_labels", clock.skip_labels))
        yield clock


def command(mode: str, overrides: list[str]) -> dict[str, float]:
    """Train by ``d2csr-train``."""
    begin = D2CSRTask.on_train_batch_start
    with tempfile.TemporaryDirectory() as folder, measured() as clock:

        def marked(*args: Any) -> None:
            clock.mark()
            begin(*args)

        where = [f"hydra.run.dir={folder}/run", f"data.list_dir={folder}/pairs"]
        stage = ["model.divergence_epochs=1"] if mode == "sequential" else []
        sys.argv = ["d2csr-train", *SETTINGS, f"optimization={mode}", *stage, *where, *overrides]
        with mock.patch.object(D2CSRTask, "on_train_batch_start", marked):
            train.main()
    return clock.medians()


class Steps(pl.LightningModule):
    """The steps of all modes, of ``sequential`` those of its first stage, and nothing else."""

    def __init__(self, mode: str, clock: Clock) -> None:
        super().__init__()
        self.network = D2CSR(4, branching=(2, 2), features=4, fusion_features=4, body=BODY)
        self.clock, self.mode = clock, mode
        self.automatic_optimization = mode != "alternating"

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one optimizer, or one for each network."""
        network = self.network
        networks = [network.divergence, network.convergence] if self.mode == "alternating" else [network]
        return [Adam(part.parameters(), lr=1e-4, weight_decay=1e-8, fused=True) for part in networks]

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin a step."""
        self.clock.mark()

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return predictions and their loss."""
        predictions = self.network.divergence(batch["lr"])
        return predictions, sum(F.mse_loss(leaf, batch["hr"]) for leaf in predictions.unbind(1))

    def fusion(self, predictions: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of the fused image."""
        return F.mse_loss(self.network.convergence(predictions)[0], batch["hr"])

    def alternate(self, batch: dict[str, Tensor], optimizers: list[Any], backward: Callable[[Tensor], Any]) -> None:
        """Step both networks, one after the other."""
        optimizers[0].zero_grad()
        backward(self.losses(batch)[1])
        optimizers[0].step()
        with torch.no_grad():
            predictions = self.network.divergence(batch["lr"])
        optimizers[1].zero_grad()
        backward(self.fusion(predictions, batch))
        optimizers[1].step()

    def whole_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of both networks, or of the first stage."""
        predictions, loss = self.losses(batch)
        return loss if self.mode == "sequential" else loss + self.fusion(predictions.detach(), batch)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor | None:
        """Step both networks, or return their loss."""
        if self.mode != "alternating":
            return self.whole_loss(batch)
        self.alternate(batch, self.optimizers(), self.manual_backward)
        return None


def batches() -> list[dict[str, Tensor]]:
    """Return the batches of a training, all the same."""
    return [{"lr": torch.rand(1, 3, 4, 4), "hr": torch.rand(1, 3, 16, 16)}] * STEPS


def lightning(mode: str) -> dict[str, float]:
    """Train by Lightning's Trainer, with everything turned off that can be."""
    off = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    with measured() as clock:
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **off)
        trainer.fit(Steps(mode, clock), torch.utils.data.DataLoader(batches(), batch_size=None))
    return clock.medians()


def loop(mode: str) -> dict[str, float]:
    """Train by a loop."""
    with measured() as clock:
        steps = Steps(mode, clock)
        optimizers = steps.configure_optimizers()
        for batch in batches():
            clock.mark()
            if mode == "alternating":
                steps.alternate(batch, optimizers, lambda loss: loss.backward())
                continue
            optimizers[0].zero_grad()
            steps.whole_loss(batch).backward()
            optimizers[0].step()
    return clock.medians()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="runs/bench/host_time.json", help="also write the numbers here ('': do not)")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = ("rest", "optimizer", "batch", "network")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for mode in arguments.modes:
        rounds = [
            {"d2csr-train": command(mode, arguments.overrides), "Lightning": lightning(mode), "loop": loop(mode)}
            for _ in range(arguments.rounds)
        ]
        table[mode] = {
            name: {part: statistics.median(one[name][part] for one in rounds) for part in columns} for name in rounds[0]
        }
    print(f"\n{'CPU ms a step':<25}" + "".join(f"{name:>10}" for name in columns))
    for mode, rows in table.items():
        for name, row in rows.items():
            print(f"{mode + ', ' + name:<25}" + "".join(f"{row[part]:>10.2f}" for part in columns))
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), "ms": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
