"""Exponential moving average of the weights, against one computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

import d2csr
from d2csr.data.datamodule import PairDataModule
from d2csr.errors import ConfigError
from d2csr.metrics import psnr
from d2csr.training import OPTIMIZATIONS
from d2csr.training.fit import train
from helpers import build_task, checkpoint_callbacks, load_task, mostly_slow
from pair_files import write_list_of, write_pairs

MODES = list(OPTIMIZATIONS)
DECAY = 0.6


class Steps(Callback):
    """The trained weights before the first step and after each one, and whether validation changed them."""

    def __init__(self):
        self.weights = []
        self.batches = []

    def on_train_start(self, trainer, task):
        self.weights.append(copy(task))

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.batches.append(batch["lr"].clone())
        assert all(torch.equal(a, b) for a, b in zip(copy(task), self.weights[-1], strict=True))

    def on_train_batch_end(self, trainer, task, *args):
        self.weights.append(copy(task))


def copy(task):
    return [value.detach().double().clone() for value in task.network.parameters()]


def by_hand(steps, first=None):
    average = first or steps[0]
    for weights in steps[1:]:
        average = [DECAY * a + (1 - DECAY) * w for a, w in zip(average, weights, strict=True)]
    return average


def assert_close(model, expected):
    for value, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-7)


@pytest.fixture
def lists(tmp_path):
    """A list of six pairs of small images for training, and two for validation."""
    write_pairs(tmp_path, 8, 14, 13)
    splits = (("train", range(6)), ("val", range(6, 8)))
    return {f"{name}_list": str(write_list_of(tmp_path / f"{name}.txt", numbers)) for name, numbers in splits}


@pytest.fixture
def run(lists, trainer, tiny, tmp_path):
    """Train into a run folder, three steps an epoch; returns the task, the trainer and the steps."""

    def start(name, mode="joint", callbacks=(), ema_decay=DECAY, resume=None, epochs=2, **settings):
        torch.manual_seed(0)
        stage = {"divergence_epochs": 1} if mode == "sequential" else {}
        task = build_task(optimization=mode, **tiny, optimizer={"lr": 0.01}, ema_decay=ema_decay, **stage)
        steps = Steps()
        kept = [steps, *checkpoint_callbacks(tmp_path / name), *callbacks]
        made = trainer(max_epochs=epochs, callbacks=kept, enable_checkpointing=True, num_sanity_val_steps=0, **settings)
        data = PairDataModule(scale=2, batch_size=2, patch_size=8, num_workers=0, seed=3, **lists)
        train(task, data, made, run_dir=tmp_path / name, resume=resume)
        return task, made, steps

    return start


@pytest.mark.parametrize("mode", MODES)
def test_the_average_is_the_one_computed_by_hand_and_is_loaded_from_the_checkpoint(mode, run, tmp_path):
    task, _, steps = run("a", mode)
    assert len(steps.weights) == 7
    expected = by_hand(steps.weights)
    assert_close(task.network, expected)
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    assert_close(d2csr.load_model(last), expected)
    assert_close(load_task(task, last).network, expected)
    content = torch.load(last, weights_only=True)
    trained = [content["state_dict"][f"network.{name}"].double() for name, _ in task.network.named_parameters()]
    assert all(torch.equal(value, wanted) for value, wanted in zip(trained, steps.weights[-1], strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_validation_scores_the_weights_of_the_best_checkpoint(mode, run, lists, tmp_path):
    _, trainer, _ = run("a", mode, epochs=1)
    model = d2csr.load_model(tmp_path / "a" / "checkpoints" / "best.ckpt")
    scores = []
    for number in (6, 7):
        lr, hr = (
            torch.from_numpy(np.array(Image.open(tmp_path / f"{kind}{number}.png"))).permute(2, 0, 1)[None] / 255
            for kind in ("lr", "hr")
        )
        with torch.no_grad():
            scores.append(psnr(model(lr), hr, scale=2).item())
    assert trainer.callback_metrics["val/psnr"].item() == pytest.approx(sum(scores) / 2, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(mode, run, tmp_path):
    whole, _, _ = run("whole", mode, epochs=4)
    run("first", mode, epochs=2)
    resumed, _, _ = run("second", mode, epochs=4, resume=tmp_path / "first")
    assert_same(resumed, whole)
    assert_same_files(tmp_path / "second", tmp_path / "whole")


@pytest.mark.parametrize("mode", mostly_slow(MODES))
def test_the_average_resumes_from_any_checkpoint_within_an_epoch(mode, run, tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, task, *args):
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    _, _, first = run("first", mode, epochs=2, callbacks=[Save()])
    average = by_hand(first.weights[:5])
    assert_close(d2csr.load_model(tmp_path / "middle.ckpt"), average)
    resumed, _, second = run("second", mode, epochs=3, resume=tmp_path / "middle.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(second.weights[0], first.weights[4], strict=True))
    assert_close(resumed.network, by_hand(second.weights, first=average))


def assert_same(one, other):
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


def assert_same_files(one, other):
    a, b = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (one, other))
    for key in ("state_dict", "average"):
        assert a[key].keys() == b[key].keys()
        assert all(torch.equal(value, b[key][name]) for name, value in a[key].items()), key


def test_an_error_in_validation_saves_trained_and_averaged_weights_separately(run, tmp_path):
    class Break(Callback):
        def on_validation_batch_end(self, trainer, *args):
            if trainer.global_step == 6:
                raise RuntimeError("power cut")

    steps = Steps()
    with pytest.raises(RuntimeError, match="power cut"):
        run("broken", epochs=4, callbacks=[steps, Break()])
    assert len(steps.weights) == 7
    content = torch.load(tmp_path / "broken" / "checkpoints" / "last.ckpt", weights_only=True)
    for (name, value), trained, average in zip(
        content["average"].items(), steps.weights[-1], by_hand(steps.weights), strict=True
    ):
        assert torch.equal(content["state_dict"][f"network.{name}"].double(), trained)
        torch.testing.assert_close(value.double(), average, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_averaging_can_start_and_stop_when_a_run_is_resumed(run, tmp_path):
    plain, _, _ = run("plain", ema_decay=None, epochs=3)
    run("averaged", epochs=2)
    left, _, _ = run("left", ema_decay=None, epochs=3, resume=tmp_path / "averaged")
    assert_same(left, plain)
    assert "average" not in torch.load(tmp_path / "left" / "checkpoints" / "last.ckpt", weights_only=True)
    run("unaveraged", ema_decay=None, epochs=2)
    taken, _, steps = run("taken", epochs=3, resume=tmp_path / "unaveraged")
    assert_close(taken.network, by_hand(steps.weights))


def test_a_second_fit_continues_from_the_trained_weights(tiny, batches, trainer):
    task = build_task(optimization="joint", **tiny, ema_decay=DECAY)
    steps = Steps()
    for _ in range(2):
        trainer(callbacks=[steps]).fit(task, DataLoader(batches, batch_size=None))
    assert len(steps.weights) == 8
    assert all(torch.equal(a, b) for a, b in zip(steps.weights[3], steps.weights[4], strict=True))
    assert_close(task.network, by_hand(steps.weights[4:], first=by_hand(steps.weights[:4])))


@pytest.mark.parametrize("decay", [0, 1, 1.5, -0.1, True, "0.9", float("nan")])
def test_a_decay_out_of_its_range_is_named(decay, tiny):
    with pytest.raises(ConfigError, match=r"ema_decay: must be a number above 0 and below 1"):
        build_task(optimization="joint", **tiny, ema_decay=decay)
