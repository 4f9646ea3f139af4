"""Non-finite losses, which must never change the weights."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import MixedPrecision

from d2csr.callbacks import nonfinite_guard as guard
from d2csr.data.datamodule import PairDataModule
from d2csr.errors import TrainingError
from d2csr.training import OPTIMIZATIONS, build_trainer
from helpers import build_task
from pair_files import write_pairs

MODES = list(OPTIMIZATIONS)
QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 1, "num_sanity_val_steps": 0}
QUIET |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Poison(Callback):
    """Puts a value into HR of some batches."""

    def __init__(self, *batches, value=math.nan):
        self.batches, self.value = batches, value

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if batch_idx in self.batches:
            batch["hr"] = torch.full_like(batch["hr"], self.value)


def task_of(mode, tiny):
    torch.manual_seed(0)
    stages = {"divergence_epochs": 1} if mode == "sequential" else {}
    return build_task(optimization=mode, **tiny, optimizer={"lr": 0.01, "weight_decay": 0.05}, **stages)


def fit(task, batches, poison=None, **settings):
    settings = {"max_epochs": 2 if task.optimization == "sequential" else 1, **settings}
    callbacks = [*settings.pop("callbacks", []), *([poison] if poison else [])]
    made = build_trainer(optimization=task.optimization, callbacks=callbacks, **{**QUIET, **settings})
    # A copy of each batch: one that was poisoned in the first epoch is whole again in the second.
    made.fit(task, torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=dict))
    return made


def assert_same(first, second):
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def adams(trainer):
    states = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    return [entry for state in states for values in state.values() for entry in values.values()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_raise_ends_the_run_before_the_step(mode, value, tiny, batches):
    task, until_then = task_of(mode, tiny), task_of(mode, tiny)
    fit(until_then, batches[:2], max_epochs=1)
    with pytest.raises(TrainingError) as error:
        fit(task, batches, Poison(2, value=value))
    assert f"the loss is not finite at step 2 (epoch 0): batch 2: {value}" in str(error.value)
    assert "model.optimizer.lr" in str(error.value)
    assert "Its step was not taken." in str(error.value)
    assert_same(task, until_then)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_skip_continues_without_the_batch(mode, clip, tiny, batches, caplog):
    task, without = task_of(mode, tiny), task_of(mode, tiny)
    expected = fit(without, [batches[0], batches[2]], gradient_clip_val=clip)
    with caplog.at_level(logging.WARNING):
        trainer = fit(task, batches, Poison(1), on_nonfinite="skip", gradient_clip_val=clip)
    assert_same(task, without)
    pairs = zip(adams(trainer), adams(expected), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert trainer.global_step == 3 * trainer.max_epochs
    told = [record.getMessage() for record in caplog.records if record.name == guard.__name__]
    assert len(told) == trainer.max_epochs
    assert "at step 1 (epoch 0): batch 1: nan. Its step was skipped." in told[0]


@pytest.mark.parametrize("mode", ["joint", "sequential"])
def test_one_bad_batch_skips_all_batches_accumulated_with_it(mode, tiny, batches):
    task, without = task_of(mode, tiny), task_of(mode, tiny)
    fit(without, batches[1:], accumulate_grad_batches=2)
    four = [batches[0], batches[0], *batches[1:]]
    trainer = fit(task, four, Poison(0), on_nonfinite="skip", accumulate_grad_batches=2)
    assert trainer.global_step == 2 * trainer.max_epochs
    assert_same(task, without)


@pytest.mark.parametrize("mode", MODES)
def test_the_guard_works_with_a_gradient_scaler(mode, tiny, batches):
    def half():
        return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0, backoff_factor=0.999))

    task, without = task_of(mode, tiny), task_of(mode, tiny)
    fit(without, [batches[0], batches[2]], plugins=[half()])
    fit(task, batches, Poison(1), on_nonfinite="skip", plugins=[half()])
    ours, theirs = task.network.state_dict(), without.network.state_dict()
    # The scaler has lowered its scale meanwhile, which float16's rounding sees.
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-2
    with pytest.raises(TrainingError, match="not finite at step 1"):
        fit(task_of(mode, tiny), batches, Poison(1), plugins=[half()])


def test_alternating_takes_the_divergence_step_if_only_the_fusion_is_bad(tiny, batches, caplog):
    task, until_then = task_of("alternating", tiny), task_of("alternating", tiny)
    fit(until_then, batches[:1])
    task.network.convergence.register_forward_hook(lambda module, inputs, outputs: (outputs[0] * math.inf, outputs[1]))
    before = {name: value.clone() for name, value in task.network.convergence.state_dict().items()}
    fit(task, batches[:1], on_nonfinite="skip")
    assert "The step of the convergence network was skipped." in caplog.text
    after = task.network.convergence.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    expected = until_then.network.divergence.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in task.network.divergence.state_dict().items())
    with pytest.raises(TrainingError, match="The step of the convergence network was not taken"):
        fit(task, batches[:1])


@pytest.mark.parametrize("mode", MODES)
def test_many_consecutive_skips_end_the_run(mode, tiny, batches, monkeypatch):
    monkeypatch.setattr(guard, "_PATIENCE", 2)
    task = task_of(mode, tiny)
    assert fit(task, batches, Poison(0, 2), on_nonfinite="skip", max_epochs=1).global_step == 3
    with pytest.raises(TrainingError, match="This is the same in 2 steps in a row"):
        fit(task_of(mode, tiny), batches, Poison(1, 2), on_nonfinite="skip", max_epochs=1)


def test_nonfinite_weights_end_the_run_and_are_not_written(tiny, batches, tmp_path):
    task = task_of("joint", tiny)
    trainer = fit(task, batches)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    kept = (tmp_path / "last.ckpt").read_bytes()
    with torch.no_grad():
        task.network.divergence.head.bias[0] = math.nan
    with pytest.raises(TrainingError, match="the weights are not finite any more, at step 3; no checkpoint is written"):
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == kept
    with pytest.raises(TrainingError, match="the weights are not finite any more"):
        fit(task, batches, on_nonfinite="skip")


def test_the_files_of_a_bad_batch_are_named(tiny, tmp_path):
    write_pairs(tmp_path, 4, 9, 9)
    settings = {"scale": 2, "train_list": str(tmp_path / "train.txt"), "batch_size": 2, "patch_size": 8}
    seen = []

    class Record(Poison):
        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            seen.append(set(batch["index"].tolist()))
            super().on_train_batch_start(trainer, task, batch, batch_idx)

    made = build_trainer(optimization="joint", callbacks=[Record(3)], limit_val_batches=0, **QUIET)
    with pytest.raises(TrainingError) as error:
        made.fit(task_of("joint", tiny), PairDataModule(num_workers=0, seed=3, patches_per_image=2, **settings))
    assert len(seen) == 4
    named = {number for number in range(4) if str(tmp_path / f"lr{number}.png") in str(error.value)}
    assert named == seen[3]
