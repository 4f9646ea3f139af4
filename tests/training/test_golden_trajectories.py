"""The official training loop, step by step; the divergence loss has the gradient that the released loop lacks."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from d2csr.checkpoints import read_checkpoint
from helpers import build_task

LOSSES = {
    "train/reconstruction": "loss_divergence_mse",
    "train/divergence": "loss_triplet",
    "train/fusion": "loss_convergence",
}


class Losses(Callback):
    def __init__(self):
        self.seen = {name: [] for name in LOSSES}

    def on_train_batch_end(self, trainer, *args):
        for name, values in self.seen.items():
            values.append(trainer.callback_metrics[name].item())


@pytest.fixture
def official_run(golden, golden_arrays, fit):
    """Train on the batches of a golden trajectory; returns its arrays, the task and the losses of each step."""

    def run(name, **divergence):
        arrays = golden_arrays(f"train-x4-{name}.npz")
        init = read_checkpoint(golden / f"train-x4-{name}-init.pkl")
        task = build_task(
            optimization="alternating",
            **init.settings,
            optimizer={"lr": arrays["learning_rate"].item(), "weight_decay": arrays["weight_decay"].item()},
            divergence={
                "weight": arrays["divergence_weight"].item(),
                "margin_same": arrays["margin_same"].item(),
                "margin_diff": arrays["margin_diff"].item(),
                "after": -1,
                **divergence,
            },
        )
        init.load_into(task.network)
        losses = Losses()
        steps = zip(arrays["lr_batches"], arrays["hr_batches"], strict=True)
        fit(task, [{"lr": lr, "hr": hr} for lr, hr in steps], callbacks=[losses])
        return arrays, task, losses.seen

    return run


@pytest.mark.parametrize("name", ["mse", "triplet"])
def test_each_step_has_the_official_losses_and_the_last_the_official_outputs(name, official_run, off_by):
    arrays, task, losses = official_run(name)
    for ours, official in LOSSES.items():
        assert len(losses[ours]) == 12
        assert losses[ours] == pytest.approx(arrays[official].tolist(), rel=1e-4), ours
    with torch.no_grad():
        predictions = task.network.divergence(arrays["lr_batches"][0])
        sr, _ = task.network.convergence(predictions)
    assert off_by(predictions[:, 0], arrays["final_pred11"]) < 1e-4
    assert off_by(predictions[:, 3], arrays["final_pred22"]) < 1e-4
    assert off_by(sr, arrays["final_sr"]) < 1e-3


@pytest.mark.slow
def test_a_detached_divergence_loss_is_logged_and_changes_no_weight(official_run, copied):
    _, without, _ = official_run("mse")
    settings = {"weight": 0.5, "margin_same": 0.1, "margin_diff": 0.3}
    arrays, detached, losses = official_run("mse", gradient=False, **settings)
    assert min(losses["train/divergence"]) > 0.1
    assert losses["train/reconstruction"] == pytest.approx(arrays["loss_divergence_mse"].tolist(), rel=1e-4)
    expected = copied(without.network.divergence)
    assert all(torch.equal(value, expected[name]) for name, value in copied(detached.network.divergence).items())


def test_an_attached_divergence_loss_changes_the_divergence_network(official_run):
    arrays, _, losses = official_run("mse", weight=0.5, margin_same=0.1, margin_diff=0.3)
    assert losses["train/reconstruction"][0] == pytest.approx(arrays["loss_divergence_mse"][0].item(), rel=1e-4)
    assert losses["train/reconstruction"][-1] != pytest.approx(arrays["loss_divergence_mse"][-1].item(), rel=1e-3)
