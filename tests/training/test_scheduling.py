"""Learning-rate schedulers in each mode of optimization, uninterrupted and resumed."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hydra.utils import get_object
from pytorch_lightning.callbacks import Callback
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import d2csr.training
from d2csr.callbacks import LastCheckpoint
from d2csr.errors import CheckpointError, ConfigError
from d2csr.training import OPTIMIZATIONS
from helpers import build_task

MODES = list(OPTIMIZATIONS)
STEP_DECAY = {"_target_": "d2csr.schedules.StepDecay", "_partial_": True, "decay_every": 1, "decay_factor": 0.5}
COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True, "T_max": 10}
WARMUP = {"_target_": "d2csr.schedules.CosineWithWarmup", "_partial_": True, "warmup": 3, "total": 12, "minimum": 0.1}
STEP = {"_target_": "torch.optim.lr_scheduler.MultiStepLR", "_partial_": True, "milestones": [2, 5], "gamma": 0.5}


class Rates(Callback):
    """The learning rate of each batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *args):
        self.seen.append(trainer.optimizers[-1].param_groups[0]["lr"])


class Interruption(Callback):
    """Ends the training after a number of batches; ``LastCheckpoint`` has saved by then."""

    def __init__(self, after):
        self.after = after

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_step == self.after:
            raise KeyboardInterrupt


def scheduled(mode, tiny, scheduler, *, lr=0.01, divergence_epochs=2, **settings):
    """Build a task with another scheduler than the shipped one."""
    torch.manual_seed(0)
    stage = {"divergence_epochs": divergence_epochs} if mode == "sequential" else {}
    task = build_task(optimization=mode, **tiny, optimizer={"lr": lr}, **stage, **settings)
    kind = get_object(scheduler["_target_"])
    keywords = {key: value for key, value in scheduler.items() if not key.startswith("_")}
    task.scheduler_factory = partial(kind, **keywords)
    return task


@pytest.fixture
def train(trainer, batches, tmp_path):
    """Train into a folder with ``last.ckpt`` after each batch; returns the rates."""

    same = batches[:1] * 3  # a loader without a state begins again in the middle of an epoch

    def start(task, epochs, *, stop=None, resume=None):
        rates = Rates()
        callbacks = [rates, LastCheckpoint(tmp_path, every_n_steps=1)] + ([Interruption(stop)] if stop else [])
        made = trainer(max_epochs=epochs, callbacks=callbacks, enable_checkpointing=True, num_sanity_val_steps=0)
        try:
            made.fit(task, DataLoader(same, batch_size=None), ckpt_path=resume, weights_only=True)
        except (KeyboardInterrupt, SystemExit):
            assert stop
        return rates.seen

    return start


@pytest.mark.parametrize("mode", MODES)
def test_a_torch_scheduler_steps_once_an_epoch(mode, tiny, train):
    rates = train(scheduled(mode, tiny, COSINE), 4)
    cosine = [0.005 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(4)]
    expected = cosine[:2] * 2 if mode == "sequential" else cosine  # which starts again with the second stage
    assert rates == pytest.approx([rate for rate in expected for _ in range(3)])


@pytest.mark.parametrize("mode", MODES)
def test_a_scheduler_can_step_with_each_batch(mode, tiny, train):
    rates = train(scheduled(mode, tiny, STEP_DECAY, scheduler_interval="step"), 2, stop=None)
    assert rates == [0.01 * 0.5**step for step in range(6)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "interval"),
    [(STEP_DECAY, "epoch"), (COSINE, "epoch"), (COSINE, "step"), (WARMUP, "step"), (STEP, "epoch")],
    ids=lambda value: value if isinstance(value, str) else value["_target_"].split(".")[-1],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stop", [4, 6, 7])  # in an epoch; between two, and two stages; after the restart
def test_a_resumed_run_has_the_rates_and_weights_of_an_uninterrupted_one(
    stop, mode, interval, scheduler, tiny, train, tmp_path
):
    settings = {"scheduler_interval": interval}
    whole = scheduled(mode, tiny, scheduler, **settings)
    expected = train(whole, 4)
    before = train(scheduled(mode, tiny, scheduler, **settings), 4, stop=stop)
    resumed = scheduled(mode, tiny, scheduler, **settings)
    rates = train(resumed, 4, resume=tmp_path / "last.ckpt")
    assert before[:stop] == expected[:stop]
    assert rates == expected[12 - len(rates) :]
    assert len(rates) == 12 - stop
    weights = resumed.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.network.state_dict().items())


@pytest.mark.parametrize("scheduler", [STEP_DECAY, COSINE])
def test_a_changed_learning_rate_takes_effect_when_resumed(scheduler, tiny, train, tmp_path):
    train(scheduled("joint", tiny, scheduler), 2)
    rates = train(scheduled("joint", tiny, scheduler, lr=0.3), 3, resume=tmp_path / "last.ckpt")
    expected = [0.3 * 0.25] if scheduler is STEP_DECAY else [0.15 * (1 + math.cos(math.pi * 2 / 10))]
    assert rates == pytest.approx(expected * 3)


def test_changed_settings_of_optimizer_and_scheduler_take_effect_when_resumed(tiny, train, tmp_path):
    train(scheduled("joint", tiny, STEP_DECAY), 2)
    resumed = scheduled("joint", tiny, {**STEP_DECAY, "decay_every": 2})
    resumed.optimizer_factory = partial(torch.optim.Adam, lr=0.01, betas=[0.5, 0.6], weight_decay=0.3)
    rates = train(resumed, 3, resume=tmp_path / "last.ckpt")
    assert rates == [0.005] * 3
    [group] = resumed.schedulers.optimizers[0].param_groups
    assert (list(group["betas"]), group["weight_decay"]) == ([0.5, 0.6], 0.3)


def test_a_checkpoint_without_schedulers_is_resumed_at_its_epoch(tiny, train, tmp_path):
    """As version 1.0 wrote it."""
    train(scheduled("joint", tiny, STEP_DECAY), 2)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del content["schedulers"]
    torch.save(content, tmp_path / "old.ckpt")
    assert train(scheduled("joint", tiny, STEP_DECAY), 3, resume=tmp_path / "old.ckpt") == [0.0025] * 3
    cosine = train(scheduled("joint", tiny, COSINE), 3, resume=tmp_path / "old.ckpt")
    assert cosine == pytest.approx([0.005 * (1 + math.cos(math.pi * 2 / 10))] * 3)


def test_another_kind_of_optimizer_is_refused_when_resumed(tiny, train, tmp_path):
    train(scheduled("joint", tiny, STEP_DECAY), 1)
    other = scheduled("joint", tiny, STEP_DECAY)
    other.optimizer_factory = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    with pytest.raises(CheckpointError, match=r"the state of torch\.optim\.adam\.Adam, not of torch\.optim\.sgd\.SGD"):
        train(other, 2, resume=tmp_path / "last.ckpt")


@pytest.mark.parametrize("mode", MODES)
def test_the_rate_is_lowered_when_the_validation_psnr_stops_rising(mode, tiny, batches, trainer):
    task = scheduled(mode, tiny, COSINE, divergence_epochs=5)
    task.scheduler_factory = partial(lr_scheduler.ReduceLROnPlateau, mode="max", factor=0.5, patience=0, threshold=1e9)
    rates = Rates()
    made = trainer(max_epochs=4, callbacks=[rates], num_sanity_val_steps=0)
    image = [{"lr": torch.rand(1, 3, 8, 8), "hr": torch.rand(1, 3, 16, 16)}]
    made.fit(task, DataLoader(batches[:1], batch_size=None), DataLoader(image, batch_size=None))
    assert rates.seen == [0.01, 0.01, 0.005, 0.0025]


def test_a_plateau_scheduler_follows_the_psnr_upwards(tiny):
    losses = {name: torch.nn.MSELoss() for name in ("reconstruction", "divergence", "fusion")}
    parts = {
        "init": "torch",
        "network": {"scale": 2, "features": 16, "branching": [2], "fusion_features": 8},
        "losses": losses,
    }
    divergence = {
        "weight": 0.0,
        "gradient": True,
        "after": 0,
        "period": 1,
        "active": 1,
        "decay_every": 1,
        "decay_factor": 0.5,
    }
    rest = dict.fromkeys(("divergence_epochs", "ema_decay", "compile"))
    build = partial(
        d2csr.training.build_task,
        optimization="joint",
        **parts,
        divergence=divergence,
        optimizer=torch.optim.Adam,
        scheduler_interval="epoch",
        protocol="d2csr",
        activation_checkpointing=False,
        **rest,
    )
    task = build(scheduler=partial(lr_scheduler.ReduceLROnPlateau, patience=3))
    assert task.scheduler_factory.keywords == {"patience": 3, "mode": "max"}
    with pytest.raises(ConfigError, match=r"^scheduler\.mode: must be one of max, got 'min'"):
        build(scheduler=partial(lr_scheduler.ReduceLROnPlateau, mode="min"))


def test_without_a_scheduler_the_rate_is_constant(tiny, train):
    task = scheduled("alternating", tiny, STEP_DECAY)
    task.scheduler_factory = None
    assert train(task, 3) == [0.01] * 9


def test_loss_modules_add_no_weights_to_a_checkpoint(tiny, train, tmp_path):
    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 3, 1)

        def forward(self, sr, hr):
            return (self.layer(sr) - self.layer(hr)).square().mean()

    task = scheduled("joint", tiny, STEP_DECAY)
    names = set(task.state_dict())
    task.losses["fusion"] = Learned()
    train(task, 1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(content["state_dict"]) == names
    assert all(name.startswith("network.") for name in names)
