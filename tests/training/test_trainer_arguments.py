"""Every public argument of Lightning's Trainer, in all modes: it works, or it is refused by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.profilers import SimpleProfiler

from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError
from d2csr.loggers import CSVLogger
from d2csr.training import build_trainer
from d2csr.training.fit import train
from helpers import build_task, checkpoint_callbacks

MODES = ["alternating", "joint", "sequential"]
WORKS: dict[str, Any] = {
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "precision": "bf16-mixed",
    "logger": False,
    "callbacks": [Callback()],
    "fast_dev_run": True,
    "max_epochs": 3,
    "min_epochs": 1,
    "max_steps": 3,
    "min_steps": 1,
    "max_time": "00:00:05:00",
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "overfit_batches": 1,
    "val_check_interval": 1,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 1,
    "log_every_n_steps": 1,
    "enable_checkpointing": True,
    "enable_progress_bar": True,
    "enable_model_summary": True,
    "accumulate_grad_batches": 2,
    "gradient_clip_val": 0.1,
    "gradient_clip_algorithm": "value",
    "deterministic": True,
    "benchmark": True,
    "inference_mode": False,
    "use_distributed_sampler": False,
    "profiler": SimpleProfiler(),
    "detect_anomaly": True,
    "plugins": [Precision()],
    "sync_batchnorm": True,
    "reload_dataloaders_every_n_epochs": 1,
    "default_root_dir": "elsewhere",
    "enable_autolog_hparams": False,
}
# Steps of two epochs of two batches, where an argument changes their number.
STEPS = {
    **{"fast_dev_run": 1, "max_epochs": 6, "max_steps": 3},
    **{"limit_train_batches": 2, "overfit_batches": 2, "accumulate_grad_batches": 2},
}
# Values of arguments that training cannot use.
REFUSED: dict[str, list[Any]] = {
    "barebones": [True],
    "limit_test_batches": [1, 0.5],
    "limit_predict_batches": [1],
    "model_registry": ["a/b"],
    "precision": ["64-true", "bf16-true", "16-true", "transformer-engine", 7],
    "strategy": ["fsdp", "deepspeed", "ddp_spawn"],
    "gradient_clip_algorithm": ["l1"],
    "gradient_clip_val": [-1],
}


@pytest.fixture
def run(tmp_path: Path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0)
    lines = []
    for number in range(4):
        lr = pixels.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(lr).save(tmp_path / f"lr{number}.png")
        Image.fromarray(lr.repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / f"hr{number}.png")
        lines.append(f"lr{number}.png hr{number}.png\n")
    (tmp_path / "train.txt").write_text("".join(lines))

    def start(mode: str, **settings: Any) -> pl.Trainer:
        torch.manual_seed(0)
        stages = {"divergence_epochs": 1} if mode == "sequential" else {}
        task = build_task(optimization=mode, **tiny, **stages)
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": CSVLogger(tmp_path, "csv", ""),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        callbacks = [*settings.pop("callbacks", []), *checkpoint_callbacks(tmp_path)]
        trainer = build_trainer(optimization=mode, callbacks=callbacks, **{**defaults, **settings})
        data = PairDataModule(scale=2, batch_size=2, patch_size=8, train_list=str(tmp_path / "train.txt"))
        train(task, data, trainer, run_dir=tmp_path)
        return trainer

    return start


class Batches(Callback):
    """Keeps the first LR patch of each batch, and the number of validations."""

    def __init__(self) -> None:
        self.patches: list[torch.Tensor] = []
        self.validations = 0

    def on_train_batch_start(self, trainer: pl.Trainer, task: Any, batch: Any, number: int) -> None:
        self.patches.append(batch["lr"][0].clone())

    def on_validation_end(self, *_: Any) -> None:
        self.validations += 1


def test_the_table_has_every_argument() -> None:
    assert set(WORKS) | set(REFUSED) == set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WORKS)
def test_it_works(name: str, mode: str, run, tmp_path: Path) -> None:
    if (name, mode) == ("accumulate_grad_batches", "alternating"):
        with pytest.raises(ConfigError, match="optimization=alternating has two steps a batch and cannot accumulate"):
            run(mode, **{name: WORKS[name]})
        return
    trainer = run(mode, **{name: WORKS[name]})
    assert trainer.global_step == STEPS.get(name, 4)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_it_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        build_trainer(optimization="joint", **{"accelerator": "cpu", "logger": False, name: value})


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_overfitting_repeats_the_same_patches(mode: str, run) -> None:
    kept = Batches()
    run(mode, callbacks=[kept], overfit_batches=1, max_epochs=3)
    first, *others = kept.patches
    assert len(others) == 2
    assert all(torch.equal(first, patch) for patch in others)
    kept = Batches()
    run(mode, callbacks=[kept], limit_train_batches=1, max_epochs=3)
    first, *others = kept.patches
    assert not any(torch.equal(first, patch) for patch in others)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "validations"),
    [
        ({}, 2),
        ({"val_check_interval": 1}, 4),
        ({"val_check_interval": 0.5}, 4),
        ({"check_val_every_n_epoch": 5}, 1),  # after the last epoch
        ({"limit_val_batches": 0}, 0),
        ({"num_sanity_val_steps": 1}, 3),
        ({"fast_dev_run": True}, 1),
    ],
)
def test_the_number_of_validations(settings: dict[str, Any], validations: int, run) -> None:
    kept = Batches()
    run("joint", callbacks=[kept], **settings)
    assert kept.validations == validations


@pytest.mark.slow
def test_a_profiler_writes_its_report(run, tmp_path: Path) -> None:
    run("alternating", profiler=SimpleProfiler(dirpath=tmp_path, filename="profile"))
    report = (tmp_path / "fit-profile.txt").read_text()
    assert "AlternatingTask.training_step" in report or "optimizer_step" in report
    assert "run_training_batch" in report


@pytest.mark.slow
def test_the_time_limit_ends_a_run(run) -> None:
    assert run("joint", max_time="00:00:00:00", max_epochs=1000).global_step <= 1
