"""Arguments of Lightning's Trainer: each works in every mode, or is refused by name."""

from __future__ import annotations

import inspect

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.plugins.io import TorchCheckpointIO

from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError
from d2csr.training import OPTIMIZATIONS, build_trainer
from d2csr.training.fit import train
from helpers import build_task, checkpoint_callbacks
from pair_files import write_pairs

# Values that work, and the number of steps then; the run has two epochs of two steps without them.
WORKS = {
    "accelerator": ("cpu", 4),
    "strategy": ("auto", 4),
    "devices": (1, 4),
    "num_nodes": (1, 4),
    "precision": ("bf16-mixed", 4),
    "logger": (False, 4),
    "callbacks": ([], 4),
    "fast_dev_run": (True, 1),
    "max_epochs": (3, 6),
    "min_epochs": (2, 4),
    "max_steps": (3, 3),
    "min_steps": (3, 4),
    "max_time": ("00:01:00:00", 4),
    "limit_train_batches": (1, 2),
    "limit_val_batches": (0.5, 4),
    "overfit_batches": (1, 2),
    "val_check_interval": (0.5, 4),
    "check_val_every_n_epoch": (2, 4),
    "num_sanity_val_steps": (-1, 4),
    "log_every_n_steps": (1, 4),
    "enable_progress_bar": (False, 4),
    "enable_model_summary": (True, 4),
    "accumulate_grad_batches": (2, 2),
    "gradient_clip_val": (0.1, 4),
    "gradient_clip_algorithm": ("value", 4),
    "deterministic": (True, 4),
    "benchmark": (True, 4),
    "profiler": ("simple", 4),
    "detect_anomaly": (True, 4),
    "plugins": ([MixedPrecision("bf16-mixed", "cpu")], 4),
    "sync_batchnorm": (True, 4),
    "reload_dataloaders_every_n_epochs": (1, 4),
    "default_root_dir": (".", 4),
    "enable_autolog_hparams": (False, 4),
}
REFUSED = {
    "enable_checkpointing": False,
    "barebones": True,
    "limit_test_batches": 1,
    "limit_predict_batches": 1,
    "inference_mode": False,
    "use_distributed_sampler": True,
    "model_registry": "a/b",
}


def test_the_tables_name_every_argument():
    assert {*WORKS, *REFUSED} == set(inspect.signature(pl.Trainer).parameters)
    assert not WORKS.keys() & REFUSED.keys()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_epochs", "x", "must be a whole number from -1 up, got 'x'"),
        ("max_steps", 1.5, "must be a whole number from -1 up, got 1.5"),
        ("min_epochs", [], r"must be a whole number from 0 up, got \[\]"),
        ("limit_val_batches", "half", "must be a number at least 0, got 'half'"),
        ("val_check_interval", True, "must be a number above 0, got True"),
        ("benchmark", "fast", "must be true or false, got 'fast'"),
        ("deterministic", "ture", "must be one of True, False, warn, got 'ture'"),
        ("enable_progress_bar", 1, "must be true or false, got 1"),
        ("max_time", 3600, 'must be "days:hours:minutes:seconds", got 3600'),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused_by_name(name, value, message):
    with pytest.raises(ConfigError, match=f"^{name}: {message}"):
        build_trainer(optimization="joint", **{name: value})


@pytest.fixture
def fit(tmp_path, tiny, monkeypatch):
    """Train on four pairs with some arguments of the trainer, and return it."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, 4, 12, 12)

    def start(mode, num_workers=0, **settings):
        torch.manual_seed(0)
        task = build_task(optimization=mode, **tiny, **({"divergence_epochs": 1} if mode == "sequential" else {}))
        data = PairDataModule(scale=2, batch_size=2, patch_size=8, train_list="train.txt", num_workers=num_workers)
        quiet = {"accelerator": "cpu", "devices": 1, "logger": False, "use_distributed_sampler": False}
        quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
        settings = {"max_epochs": 2, **quiet, **settings}
        callbacks = [*settings.pop("callbacks", []), *checkpoint_callbacks(tmp_path / "run")]
        trainer = build_trainer(optimization=mode, callbacks=callbacks, **settings)
        train(task, data, trainer, run_dir=tmp_path / "run")
        return trainer

    return start


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(OPTIMIZATIONS))
@pytest.mark.parametrize("name", WORKS)
def test_an_argument_works(fit, tmp_path, mode, name):
    value, steps = WORKS[name]
    others = {"gradient_clip_val": 0.1} if name == "gradient_clip_algorithm" else {}
    if (mode, name) == ("alternating", "accumulate_grad_batches"):
        with pytest.raises(ConfigError, match=r"^accumulate_grad_batches: .* cannot accumulate"):
            fit(mode, **{name: value})
        return
    try:
        assert fit(mode, **{name: value}, **others).global_step == steps
    finally:
        torch.use_deterministic_algorithms(False)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    if name == "profiler":
        [report] = tmp_path.glob("fit-profile*.txt")
        assert "run_training_batch" in report.read_text()


class Batches(Callback):
    """Keeps the first LR patch of each batch, and counts the validations."""

    def __init__(self):
        self.patches, self.validations = [], 0

    def on_train_batch_start(self, trainer, task, batch, number):
        self.patches.append(batch["lr"][0].clone())

    def on_validation_end(self, *_):
        self.validations += 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(OPTIMIZATIONS))
@pytest.mark.parametrize(
    ("setting", "num_workers", "repeated"),
    [("overfit_batches", 0, True), ("overfit_batches", 2, True), ("limit_train_batches", 0, False)],
)
def test_overfitting_repeats_the_same_patches(fit, mode, setting, num_workers, repeated):
    kept = Batches()
    fit(mode, num_workers, callbacks=[kept], max_epochs=3, **{setting: 1})
    first, *others = kept.patches
    assert [torch.equal(first, patch) for patch in others] == [repeated, repeated]


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
def test_the_number_of_validations(fit, settings, validations):
    kept = Batches()
    fit("joint", callbacks=[kept], **settings)
    assert kept.validations == validations


def test_an_interval_above_the_epoch_is_named(fit):
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval \(5\) must be less than"):
        fit("joint", val_check_interval=5)


@pytest.mark.parametrize("mode", list(OPTIMIZATIONS))
@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_is_refused_by_name(mode, name, tmp_path):
    with pytest.raises(ConfigError, match=rf"^{name}: "):
        build_trainer(optimization=mode, callbacks=checkpoint_callbacks(tmp_path), **{name: REFUSED[name]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epoch": 3}, "max_epoch: Lightning's Trainer has no such argument"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch: must be a whole number from 1 up"),
        ({"limit_train_batches": 0}, "limit_train_batches: must be a number above 0, got 0"),
        ({"precision": "64-true"}, "precision: must be one of 32-true"),
        ({"precision": "bf16-true"}, "precision: must be one of 32-true"),
        ({"strategy": "fsdp"}, "strategy: must be one of auto, ddp"),
        ({"profiler": "fast"}, "profiler: must be one of simple, advanced, pytorch"),
        ({"plugins": [TorchCheckpointIO()]}, "plugins: a CheckpointIO would have no effect"),
    ],
)
def test_an_impossible_value_is_named(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        build_trainer(optimization="joint", **settings)
