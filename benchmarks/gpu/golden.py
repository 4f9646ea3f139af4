"""Golden data of the official implementation on the device: in IEEE float32 by the CPU's bounds, and beyond them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.build import compiler, make_task, make_trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from d2csr import load_model
from d2csr.checkpoints import read_checkpoint
from d2csr.losses import divergence_loss
from d2csr.precision import tf32

_LEAVES = ("11", "12", "21", "22")
_LOSSES = {
    "train/reconstruction": "loss_divergence_mse",
    "train/divergence": "loss_triplet",
    "train/fusion": "loss_convergence",
}


def run(bench: Bench) -> None:
    with tf32(False):
        _networks(bench)
        _losses(bench)
    for name in ("mse", "triplet"):
        with bench.guard({}, f"golden.trajectory.{name}"):
            _trajectory(bench, name)
    _differences(bench)


def _folder(bench: Bench) -> Path:
    return bench.root / "tests" / "golden"


def _arrays(bench: Bench, name: str) -> dict[str, Tensor]:
    """Read an npz file, with images turned from BGR to RGB, onto the device."""
    with np.load(_folder(bench) / name) as found:
        arrays = {key: torch.from_numpy(found[key]) for key in found}
    rgb = {key: a.flip(-3) if a.ndim >= 4 and a.shape[-3] == 3 else a for key, a in arrays.items()}
    return {key: value.to(bench.device) for key, value in rgb.items()}


def _stacked(arrays: dict[str, Tensor], prefix: str) -> Tensor:
    return torch.stack([arrays[prefix + leaf] for leaf in _LEAVES], dim=1)


def off_by(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the range of the second."""
    return float((actual.float() - expected).abs().max() / (expected.max() - expected.min()))


def _networks(bench: Bench) -> None:
    worst = {"predictions": 0.0, "weights": 0.0, "fused image": 0.0}
    for scale in (2, 3, 4, 8):
        arrays = _arrays(bench, f"net-x{scale}-f16-b1.npz")
        model = load_model(_folder(bench) / f"net-x{scale}-f16-b1.pkl", device=str(bench.device))
        with torch.no_grad():
            predictions = model.divergence(arrays["lr"])
            sr, weights = model.convergence(predictions)
        found = (off_by(predictions, _stacked(arrays, "pred")), off_by(weights, arrays["weights"]))
        for name, value in zip(worst, (*found, off_by(sr, arrays["sr"])), strict=True):
            worst[name] = max(worst[name], value)
    bench.judge("golden.networks", max(worst.values()) < 1e-4, _shown(worst))


def _losses(bench: Bench) -> None:
    losses, gradients = [], []
    for name in ("default", "config", "wide"):
        arrays = _arrays(bench, f"divergence-loss-{name}.npz")
        settings = {key: arrays[key].item() for key in ("weight", "margin_same", "margin_diff", "decay_rate")}
        predictions = _stacked(arrays, "pred").requires_grad_()
        loss = divergence_loss(predictions, arrays["hr"], **settings)
        loss.backward()
        expected = _stacked(arrays, "grad")
        losses.append(abs(loss.item() / arrays["loss"].item() - 1))
        assert predictions.grad is not None
        gradients.append(((predictions.grad - expected).abs().max() / expected.abs().max()).item())
    bench.judge("golden.loss", max(losses) < 1e-5, f"{max(losses):.1e} relative")
    bench.judge("golden.gradient", max(gradients) <= 1e-4, f"{max(gradients):.1e} of the largest")


class _Recorder(Callback):
    """Keeps the losses of each step."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {name: [] for name in _LOSSES}

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        for name, values in self.seen.items():
            values.append(trainer.callback_metrics[name].item())


def _trajectory(bench: Bench, name: str) -> None:
    """Train on the batches of an official training, and compare each loss and the last outputs."""
    arrays = _arrays(bench, f"train-x4-{name}.npz")
    init = read_checkpoint(_folder(bench) / f"train-x4-{name}-init.pkl")
    numbers = ("divergence_weight", "margin_same", "margin_diff", "learning_rate", "weight_decay")
    weight, same, diff, rate, decay = (arrays[key].item() for key in numbers)
    task = make_task(
        "alternating",
        init.settings,
        optimizer={"lr": rate, "weight_decay": decay},
        divergence={"weight": weight, "after": -1},
        losses={"divergence": {"margin_same": same, "margin_diff": diff}},
    )
    init.load_into(task.network)
    recorder = _Recorder()
    batches = [{"lr": a, "hr": b} for a, b in zip(arrays["lr_batches"], arrays["hr_batches"], strict=True)]
    trainer = make_trainer(bench, "alternating", "ieee", callbacks=[recorder])
    trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))
    worst = max(
        abs(ours / official - 1) if official else abs(ours)
        for key, golden in _LOSSES.items()
        for ours, official in zip(recorder.seen[key], arrays[golden].tolist(), strict=True)
    )
    with torch.no_grad(), tf32(False):
        network = task.network.to(bench.device)
        predictions = network.divergence(arrays["lr_batches"][0])
        sr, _ = network.convergence(predictions)
    leaf, fused = off_by(predictions[:, 0], arrays["final_pred11"]), off_by(sr, arrays["final_sr"])
    detail = f"losses {worst:.1e} relative; after 12 steps leaf {leaf:.1e}, fused image {fused:.1e} of the range"
    bench.judge(f"golden.trajectory.{name}", worst < 1e-4 and leaf < 1e-4 and fused < 1e-3, detail)


def _differences(bench: Bench) -> None:
    """Compare other ways to compute the same network with the official predictions; there is no bound."""
    table = bench.table("Differences from the golden network ×4, as a share of the range")
    arrays = _arrays(bench, "net-x4-f16-b1.npz")
    model = load_model(_folder(bench) / "net-x4-f16-b1.pkl", device=str(bench.device))
    lr = arrays["lr"]
    for name in ("ieee", "tf32", "bf16", "fp16", "default layout", "channels last", "compiled"):
        row: dict[str, Any] = {"computed": name}
        table.rows.append(row)
        with bench.guard(row), _way(bench, name, model) as network, torch.no_grad():
            layout = torch.channels_last if name == "channels last" else torch.contiguous_format
            predictions = network.divergence(lr.contiguous(memory_format=layout))
            sr, _ = network.convergence(predictions)
            row |= {
                "predictions": off_by(predictions, _stacked(arrays, "pred")),
                "fused image": off_by(sr, arrays["sr"]),
            }
            row["channels last after the pixel shuffle"] = _shuffled_layout(network, lr)
    complete = all("fused image" in row for row in table.rows)
    worst = {row["computed"]: round(row.get("fused image", 0), 6) for row in table.rows}
    bench.judge("golden.differences", complete, _shown(worst))


@contextmanager
def _way(bench: Bench, name: str, model: Any) -> Iterator[Any]:
    """Yield the network, and compute in one of the ways within the block."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    network = copy.deepcopy(model)
    if name == "default layout":
        network = network.to(memory_format=torch.contiguous_format)
    with tf32(name == "tf32"), torch.autocast(bench.device.type, dtype, enabled=dtype is not None), compiler(bench):
        if name == "compiled":
            for part in (network.divergence, network.convergence):
                part.compile()
        yield network


def _shuffled_layout(network: Any, lr: Tensor) -> bool:
    """Return whether the output of the first pixel shuffle has the channels last."""
    seen: list[bool] = []
    shuffle = next(part for part in network.modules() if isinstance(part, torch.nn.PixelShuffle))
    hook = shuffle.register_forward_hook(
        lambda *args: seen.append(args[2].is_contiguous(memory_format=torch.channels_last))
    )
    _, features = next(iter(network.divergence.trunk(lr)))
    network.divergence.reconstruct(network.tree.leaves[0], features)
    hook.remove()
    return seen[0]


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in values.items())


PART = Part(
    "golden",
    60,
    {
        "golden.networks": "predictions, weights and fused images of ×2, ×3, ×4, ×8 within 1e-4 of the range, in IEEE",
        "golden.loss": "divergence loss within 1e-5",
        "golden.gradient": "its gradient within 1e-4 of the largest",
        "golden.trajectory.mse": "12 official steps: losses within 1e-4, outputs within 1e-4 and 1e-3 of the range",
        "golden.trajectory.triplet": "the same with the divergence loss",
        "golden.differences": "TF32, bf16, fp16, both layouts and the compiled network are compared; no bound",
    },
    run,
)
