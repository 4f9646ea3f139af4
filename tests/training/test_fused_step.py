"""Fused optimizer steps: where they are chosen, and step counts of loaded states."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

from d2csr.optimizers import MuonWithAdamW
from d2csr.training.fused_step import move_step_counts, with_fused_step
from helpers import build_task


def built(optimizer, device="cpu", precision="32-true", **settings):
    return with_fused_step(partial(optimizer, lr=0.1, **settings), device, precision)(
        [torch.nn.Parameter(torch.ones(2))]
    )


@pytest.mark.parametrize("optimizer", [Adam, AdamW, MuonWithAdamW, SGD])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_step_is_fused(optimizer, precision) -> None:
    assert built(optimizer, precision=precision).defaults["fused"] is True


@pytest.mark.parametrize(
    ("optimizer", "device", "precision", "settings"),
    [
        (RMSprop, "cpu", "32-true", {}),  # has no such kernel
        (Adam, "mps", "32-true", {}),
        (Adam, "cuda", "16-mixed", {}),
        (Adam, "cpu", "32-true", {"foreach": True}),
        (Adam, "cpu", "32-true", {"fused": False}),
    ],
)
def test_it_is_not_where_it_is_impossible_or_the_user_has_chosen(optimizer, device, precision, settings) -> None:
    assert not built(optimizer, device, precision, **settings).defaults.get("fused")


def test_a_factory_that_is_no_partial_stays_as_it_is() -> None:
    assert with_fused_step(SGD, "cpu", "32-true") is SGD


def test_training_uses_it(tiny, batches, fit) -> None:
    task = build_task(optimization="alternating", **tiny)
    trainer = fit(task, batches)
    assert [optimizer.defaults["fused"] for optimizer in trainer.optimizers] == [True, True]


@pytest.mark.parametrize(("fused", "device"), [(True, "meta"), (None, "cpu")])
def test_loaded_step_counts_move_to_where_the_optimizer_needs_them(fused, device) -> None:
    """A checkpoint of a run whose step was not fused holds them on the CPU."""
    parameter = torch.nn.Parameter(torch.ones(2, device="meta"))
    optimizer = Adam([parameter])
    optimizer.state[parameter] = {"step": torch.tensor(3.0)}
    optimizer.param_groups[0]["fused"] = fused
    move_step_counts(optimizer)
    assert optimizer.state[parameter]["step"].device.type == device
