"""Clipping, accumulation and mixed precision in every mode, against loops written out in plain torch."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import MixedPrecision

from d2csr.errors import ConfigError
from d2csr.training import OPTIMIZATIONS, build_trainer
from helpers import build_task

MODES = list(OPTIMIZATIONS)
ADAM = {"lr": 0.01, "betas": [0.7, 0.9], "eps": 1e-3, "weight_decay": 0.05}
QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 1}
QUIET |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def task_of(mode, tiny, **settings):
    torch.manual_seed(0)
    stages = {"divergence_epochs": 1} if mode == "sequential" else {}
    return build_task(optimization=mode, **tiny, optimizer=ADAM, **stages, **settings)


def fit(mode, task, batches, **settings):
    made = build_trainer(optimization=mode, **{**QUIET, **settings})
    made.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))
    return made


def clip_by_hand(network, largest, algorithm):
    """The definitions: a gradient longer than allowed is shortened, or each of its values is cut."""
    gradients = [p.grad for p in network.parameters()]
    if algorithm == "value":
        for g in gradients:
            g.copy_(g.clip(-largest, largest))
        return
    norm = torch.cat([g.flatten().double() for g in gradients]).norm()
    for g in gradients:
        g.mul_(min(1.0, largest / norm.item()))


class ByHand:
    """The three modes in plain torch, with one Adam for each network in every mode."""

    def __init__(self, network, clip=None, algorithm="norm"):
        self.network = network
        self.clip, self.algorithm = clip, algorithm
        settings = {**ADAM, "betas": tuple(ADAM["betas"])}
        self.adam = {name: torch.optim.Adam(getattr(network, name).parameters(), **settings) for name in PARTS}

    def divergence_loss(self, batch):
        predictions = self.network.divergence(batch["lr"])
        return sum(((p - batch["hr"]) ** 2).mean() for p in predictions.unbind(dim=1)), predictions.detach()

    def convergence_loss(self, batch, predictions):
        return ((self.network.convergence(predictions)[0] - batch["hr"]) ** 2).mean()

    def step(self, name):
        if self.clip is not None:
            clip_by_hand(getattr(self.network, name), self.clip, self.algorithm)
        self.adam[name].step()
        self.adam[name].zero_grad()

    def fresh(self, batch):
        with torch.no_grad():
            return self.network.divergence(batch["lr"])

    def train(self, mode, batches, accumulate=1):
        if mode == "sequential":
            for name in PARTS:
                for start in range(0, len(batches), accumulate):
                    for batch in batches[start : start + accumulate]:
                        if name == "divergence":
                            loss, _ = self.divergence_loss(batch)
                        else:
                            loss = self.convergence_loss(batch, self.fresh(batch))
                        (loss / accumulate).backward()
                    self.step(name)
            return
        for start in range(0, len(batches), accumulate):
            for batch in batches[start : start + accumulate]:
                loss, predictions = self.divergence_loss(batch)
                (loss / accumulate).backward()
                if mode == "joint":
                    (self.convergence_loss(batch, predictions) / accumulate).backward()
            self.step("divergence")
            if mode == "alternating":
                self.convergence_loss(batch, self.fresh(batch)).backward()
            self.step("convergence")


PARTS = ("divergence", "convergence")


def furthest(first, second):
    theirs = second.state_dict()
    return max((value - theirs[name]).abs().max().item() for name, value in first.state_dict().items())


def same_way(first, second, start):
    """The cosine between the ways that two runs took from the same start, of that network which has the lower one."""

    def way(end, name):
        pairs = zip(getattr(end, name).parameters(), getattr(start, name).parameters(), strict=True)
        return torch.cat([(now - before).flatten() for now, before in pairs])

    return min(torch.cosine_similarity(way(first, name), way(second, name), dim=0).item() for name in PARTS)


def epochs(mode):
    return {"max_epochs": 2 if mode == "sequential" else 1}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("largest", "algorithm"), [(0.05, "norm"), (1e-3, "value")])
def test_each_networks_gradient_is_clipped(mode, largest, algorithm, tiny, batches):
    task = task_of(mode, tiny)
    plain, clipped = ByHand(deepcopy(task.network)), ByHand(deepcopy(task.network), largest, algorithm)
    plain.train(mode, batches)
    clipped.train(mode, batches)
    fit(mode, task, batches, gradient_clip_val=largest, gradient_clip_algorithm=algorithm, **epochs(mode))
    assert furthest(plain.network, clipped.network) > 1e-3
    assert furthest(task.network, clipped.network) < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_zero_does_not_clip(mode, tiny, batches):
    task, again = task_of(mode, tiny), task_of(mode, tiny)
    fit(mode, task, batches, gradient_clip_val=0, **epochs(mode))
    fit(mode, again, batches, **epochs(mode))
    assert furthest(task.network, again.network) == 0


@pytest.mark.parametrize("mode", ["joint", "sequential"])
def test_batches_are_accumulated_and_then_clipped(mode, tiny, batches):
    task = task_of(mode, tiny)
    by_hand = ByHand(deepcopy(task.network), 0.05)
    by_hand.train(mode, [*batches, batches[0]], accumulate=2)
    settings = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05}
    trainer = fit(mode, task, [*batches, batches[0]], **settings, **epochs(mode))
    assert trainer.global_step == 2 * trainer.max_epochs
    assert furthest(task.network, by_hand.network) < 1e-6


def half(scale):
    """What 16-mixed is on a GPU, on the CPU; from a scale of 2e5 on, float16 gradients overflow here."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_unscaled_before_they_are_clipped(mode, tiny, batches):
    """In float16 the weights differ by its rounding; were the scale still in the gradients, all would be clipped."""
    largest = 0.2
    task = task_of(mode, tiny)
    by_hand = ByHand(deepcopy(task.network), largest)
    by_hand.train(mode, batches)
    before = deepcopy(task.network)
    trainer = fit(mode, task, batches, gradient_clip_val=largest, plugins=[half(2.0**10)], **epochs(mode))
    assert trainer.precision_plugin.scaler.get_scale() == 2.0**10  # no step was skipped
    assert same_way(task.network, by_hand.network, before) > 0.99


class Steps(Callback):
    """The scale, and whether each network has moved, after each batch."""

    def __init__(self):
        self.scales, self.moved = [], []

    def on_train_batch_start(self, trainer, task, *args):
        self.before = deepcopy(task.network)

    def on_train_batch_end(self, trainer, task, *args):
        self.scales.append(trainer.precision_plugin.scaler.get_scale())
        pairs = [(getattr(task.network, name), getattr(self.before, name)) for name in PARTS]
        self.moved.append([furthest(now, before) > 0 for now, before in pairs])


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_an_overflowing_loss_scale_skips_steps_without_an_error(mode, tiny, batches):
    steps = Steps()
    task = task_of(mode, tiny)
    trainer = fit(mode, task, batches * 6, plugins=[half(2.0**36)], callbacks=[steps])
    assert steps.moved[0] == [False, False]
    assert steps.moved[-1] == [True, True]
    assert steps.scales[-1] < 2.0**34
    assert trainer.global_step == 18  # a skipped step is a batch too
    assert all(torch.isfinite(p).all() for p in task.network.parameters())


class Dtypes(Callback):
    """The types of what is minimized and what is logged."""

    def __init__(self):
        self.losses, self.logged = [], {}

    def on_before_backward(self, trainer, task, loss):
        self.losses.append(loss.dtype)

    def on_train_batch_end(self, trainer, *args):
        self.logged |= {name: value.dtype for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_losses_are_float32_and_training_is_nearly_the_same(mode, precision, tiny, batches):
    how = {"precision": "bf16-mixed"} if precision == "bf16" else {"plugins": [half(1024.0)]}
    divergence = {"weight": 0.1, "margin_same": 0.1, "margin_diff": 0.1, "after": -1}
    single, mixed = (task_of(mode, tiny, divergence=divergence) for _ in range(2))
    before, dtypes = deepcopy(single.network), Dtypes()
    fit(mode, single, batches, **epochs(mode))
    trainer = fit(mode, mixed, batches, callbacks=[dtypes], **how, **epochs(mode))
    assert set(dtypes.losses) == {torch.float32}
    assert set(dtypes.logged.values()) == {torch.float32}
    assert {"train/reconstruction", "train/divergence"} <= dtypes.logged.keys()
    assert trainer.global_step == 3 * trainer.max_epochs
    assert {p.dtype for p in mixed.network.parameters()} == {torch.float32}
    assert 0.98 < same_way(mixed.network, single.network, before) < 1 - 1e-6


def test_the_fusion_is_float32_under_autocast(tiny):
    """Weights in bfloat16 would be up to 0.4 % off, and with them the image."""
    network = task_of("joint", tiny).network
    predictions = torch.rand(1, 4, 3, 8, 8)
    expected, _ = network.convergence(predictions)
    with torch.autocast("cpu", torch.bfloat16):
        sr, weights = network.convergence(predictions)
    assert sr.dtype == weights.dtype == torch.float32
    assert torch.allclose(weights.sum(dim=1), torch.ones(1, 8, 8), atol=1e-6)
    assert torch.allclose(sr, expected, atol=2e-3)
    assert network.bfloat16().convergence(predictions.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("mode", MODES)
def test_validation_is_in_float32(mode, tiny):
    task = task_of(mode, tiny)
    whole = [{"lr": torch.rand(1, 3, 8, 8), "hr": torch.rand(1, 3, 16, 16)}]
    loader = torch.utils.data.DataLoader(whole, batch_size=None)
    single, mixed = (
        build_trainer(optimization=mode, **QUIET, precision=precision).validate(task, loader, verbose=False)[0]
        for precision in ("32-true", "bf16-mixed")
    )
    assert mixed == single


@pytest.mark.parametrize(
    ("mode", "settings", "message"),
    [
        (
            "alternating",
            {"accumulate_grad_batches": 2},
            "accumulate_grad_batches: optimization=alternating has two steps a batch",
        ),
        ("joint", {"gradient_clip_val": -1}, "gradient_clip_val: must be a number at least 0, got -1"),
        ("joint", {"gradient_clip_val": "big"}, "gradient_clip_val: must be a number at least 0"),
        ("joint", {"gradient_clip_val": float("nan")}, "gradient_clip_val: must be a number at least 0, got nan"),
        ("joint", {"gradient_clip_algorithm": "l1"}, "gradient_clip_algorithm: must be one of norm, value, got 'l1'"),
        ("joint", {"precision": "16-mixed"}, "precision: 16-mixed needs a GPU; on a CPU use bf16-mixed"),
        ("joint", {"on_nonfinite": "stop"}, "on_nonfinite: must be one of raise, skip, got 'stop'"),
        ("both", {}, "optimization: must be one of alternating, joint, sequential, got 'both'"),
    ],
)
def test_an_impossible_setting_is_named(mode, settings, message):
    with pytest.raises(ConfigError) as error:
        build_trainer(optimization=mode, **{**QUIET, **settings})
    assert message in str(error.value)
