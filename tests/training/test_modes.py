"""The three modes of optimization against loops written out by hand."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from d2csr.errors import ConfigError
from d2csr.training import AlternatingTask, JointTask, SequentialTask
from helpers import build_task

# Far from Adam's defaults, so that a setting that gets lost shows; eps keeps noise in small gradients from growing.
ADAM = {"lr": 0.01, "betas": [0.7, 0.9], "eps": 1e-3, "weight_decay": 0.05}


class Adam:
    """Adam with L2 in the gradient, as Kingma and Ba wrote it."""

    def __init__(self, network):
        self.parameters = list(network.parameters())
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, loss):
        gradients = torch.autograd.grad(loss, self.parameters)
        self.steps += 1
        b1, b2 = ADAM["betas"]
        for p, m, v, gradient in zip(self.parameters, self.first, self.second, gradients, strict=True):
            g = gradient + ADAM["weight_decay"] * p
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            unbiased, spread = m / (1 - b1**self.steps), v / (1 - b2**self.steps)
            p.sub_(ADAM["lr"] * unbiased / (spread.sqrt() + ADAM["eps"]))


def divergence_by_hand(network, optimizer, batch):
    predictions = network.divergence(batch["lr"])
    optimizer.step(sum(((p - batch["hr"]) ** 2).mean() for p in predictions.unbind(dim=1)))
    return predictions.detach()


def convergence_by_hand(network, optimizer, batch, predictions):
    sr, _ = network.convergence(predictions)
    optimizer.step(((sr - batch["hr"]) ** 2).mean())


def task_of(kind, tiny, **settings):
    torch.manual_seed(0)
    return build_task(optimization=kind.optimization, **tiny, optimizer=ADAM, **settings)


def furthest(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return max((value - theirs[name]).abs().max().item() for name, value in ours.items())


def test_alternating_converges_on_the_predictions_after_the_divergence_step(tiny, batches, fit):
    by_hand, task = task_of(AlternatingTask, tiny).network, task_of(AlternatingTask, tiny)
    divergence, convergence = Adam(by_hand.divergence), Adam(by_hand.convergence)
    for batch in batches:
        divergence_by_hand(by_hand, divergence, batch)
        convergence_by_hand(by_hand, convergence, batch, by_hand.divergence(batch["lr"]).detach())
    fit(task, batches)
    assert furthest(task.network, by_hand) < 1e-6


def test_joint_converges_on_the_predictions_before_the_divergence_step(tiny, batches, fit):
    by_hand, task = task_of(JointTask, tiny).network, task_of(JointTask, tiny)
    divergence, convergence = Adam(by_hand.divergence), Adam(by_hand.convergence)
    for batch in batches:
        convergence_by_hand(by_hand, convergence, batch, divergence_by_hand(by_hand, divergence, batch))
    fit(task, batches)
    assert furthest(task.network, by_hand) < 1e-6


def test_joint_has_the_divergence_step_of_alternating_and_another_convergence_step(tiny, batches, fit):
    joint, alternating = task_of(JointTask, tiny), task_of(AlternatingTask, tiny)
    fit(joint, batches[:1])
    fit(alternating, batches[:1])
    assert furthest(joint.network.divergence, alternating.network.divergence) < 1e-6
    assert furthest(joint.network.convergence, alternating.network.convergence) > 1e-5


def test_sequential_trains_one_network_after_the_other(tiny, batches, fit):
    by_hand, task = task_of(SequentialTask, tiny).network, task_of(SequentialTask, tiny, divergence_epochs=2)
    divergence, convergence = Adam(by_hand.divergence), Adam(by_hand.convergence)
    for batch in batches * 2:
        divergence_by_hand(by_hand, divergence, batch)
    for batch in batches:
        convergence_by_hand(by_hand, convergence, batch, by_hand.divergence(batch["lr"]).detach())
    fit(task, batches, max_epochs=3)
    assert furthest(task.network, by_hand) < 1e-6


class Snapshots(Callback):
    """Which of the two networks moved in each epoch, and the epoch's learning rate."""

    def __init__(self):
        self.moved, self.rates = [], []

    def on_train_epoch_start(self, trainer, task):
        self.before = {name: value.clone() for name, value in task.network.state_dict().items()}

    def on_train_batch_start(self, trainer, *args):
        [optimizer] = trainer.optimizers
        self.rate = optimizer.param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer, task):
        after = task.network.state_dict()
        changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, self.before[name])}
        self.moved.append(changed)
        self.rates.append(self.rate)


@pytest.mark.parametrize("divergence_epochs", [3, None])
def test_sequential_trains_one_network_at_a_time_and_restarts_the_learning_rate(divergence_epochs, tiny, batches, fit):
    snapshots = Snapshots()
    optimizer = {"lr": 0.008, "decay_every": 2, "weight_decay": 0.1}
    task = build_task(optimization="sequential", **tiny, optimizer=optimizer, divergence_epochs=divergence_epochs)
    fit(task, batches, max_epochs=6, callbacks=[snapshots])
    assert snapshots.moved == [{"divergence"}] * 3 + [{"convergence"}] * 3
    assert snapshots.rates == [0.008, 0.008, 0.004, 0.008, 0.008, 0.004]


def test_sequential_without_a_known_second_stage_is_refused(tiny, batches, fit):
    task = build_task(optimization="sequential", **tiny)
    with pytest.raises(ConfigError, match=r"Set model\.divergence_epochs, or trainer\.max_epochs to at least 2"):
        fit(task, batches, max_epochs=-1, max_steps=3)
    with pytest.raises(ConfigError, match=r"divergence_epochs: must be a whole number from 1 up, got 0"):
        build_task(optimization="sequential", **tiny, divergence_epochs=0)


def test_the_second_stage_of_a_resumed_sequential_run_begins_as_in_an_uninterrupted_one(
    tiny, batches, fit, trainer, tmp_path
):
    """Half of max_epochs is taken once: resumed with more epochs, the first stage does not begin again."""
    before = task_of(SequentialTask, tiny)
    fit(before, batches, max_epochs=4).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = task_of(SequentialTask, tiny)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer(max_epochs=10).fit(resumed, loader, ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert before.divergence_epochs == resumed.divergence_epochs == 2


def test_no_gradient_of_the_convergence_network_is_left_for_the_next_step_of_alternating(tiny, batches, fit):
    """With CUDA graphs its memory is used for other values by then."""
    task, left = build_task(optimization="alternating", **tiny), []

    class Watch(Callback):
        def on_train_batch_end(self, *_):
            left.extend(parameter.grad for parameter in task.network.convergence.parameters())

    fit(task, batches, callbacks=[Watch()])
    assert left
    assert all(gradient is None for gradient in left)


@pytest.mark.parametrize("kind", [AlternatingTask, JointTask, SequentialTask])
def test_gradients_are_released_without_labels_for_profilers(kind, tiny, batches, fit, monkeypatch):
    labelled = []
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda *_, **__: labelled.append(True))
    fit(task_of(kind, tiny), batches, max_epochs=2)
    assert not labelled
