"""Muon for convolutions, against torch's Muon and AdamW, and from a loaded state; where steps are fused."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from d2csr.errors import ConfigError
from d2csr.optimizers import MuonWithAdamW, move_step_counts, orthogonalize, with_fused_step
from helpers import build_task

SETTINGS = {"lr": 0.02, "weight_decay": 0.1}


def network() -> nn.Sequential:
    """Return kernels of three shapes, of which the first has too few channels; biases and a 1×1 convolution."""
    torch.manual_seed(0)
    sizes = ((3, 16, 3), (16, 16, 3), (16, 16, 3), (16, 32, 3), (32, 8, 1))
    return nn.Sequential(*(nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in sizes))


def train(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: range = range(4)) -> None:
    """Step with random gradients: those of a training can lack a rank, where bfloat16 adds noise to torch's Muon."""
    for step in steps:
        random = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)
        for optimizer in optimizers:
            optimizer.step()


def test_singular_values_follow_the_polynomial_of_muon() -> None:
    """Checked in float64 by a decomposition."""
    matrices = torch.randn(5, 24, 9, generator=torch.Generator().manual_seed(1))
    u, s, vt = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    for given, expected in ((matrices, u * s[:, None] @ vt), (matrices.mT, (u * s[:, None] @ vt).mT)):
        torch.testing.assert_close(orthogonalize(given).double(), expected, rtol=0, atol=2e-5)
    assert 0.6 < float(s.min()) < float(s.max()) < 1.3
    assert not orthogonalize(torch.zeros(1, 4, 9)).any()


def test_a_step_is_that_of_torchs_muon_for_kernels_and_of_adamw_for_the_rest() -> None:
    """torch's takes matrices alone, and multiplies in bfloat16."""
    ours, theirs, start = network(), network(), dict(network().named_parameters())
    train(ours, MuonWithAdamW(ours.parameters(), **SETTINGS))
    kernels = {name: p for name, p in theirs.named_parameters() if name in ("1.weight", "2.weight", "3.weight")}
    matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in kernels.values()]  # they share memory
    muon = torch.optim.Muon(matrices, **SETTINGS, momentum=0.95, adjust_lr_fn="match_rms_adamw")

    def copy_gradients(*_: object) -> None:
        for matrix, kernel in zip(matrices, kernels.values(), strict=True):
            matrix.grad = kernel.grad.flatten(1)

    muon.register_step_pre_hook(copy_gradients)
    rest = [p for name, p in theirs.named_parameters() if name not in kernels]
    train(theirs, muon, torch.optim.AdamW(rest, **SETTINGS))
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        moved = (other - start[name]).norm().item()
        assert moved > 0
        assert (own - other).norm().item() < 0.02 * moved, name


def test_gradients_stay_for_callbacks_and_a_parameter_without_one_stays_as_it_is() -> None:
    model = network()
    optimizer = MuonWithAdamW(model.parameters(), **SETTINGS)
    frozen = model[1].weight.requires_grad_(False).clone()
    model(torch.ones(1, 3, 8, 8)).sum().backward()
    before = model[2].weight.grad.clone()
    optimizer.step()
    assert torch.equal(model[2].weight.grad, before)
    assert torch.equal(model[1].weight, frozen)


@pytest.mark.parametrize("fused", [None, True])
def test_a_loaded_state_continues_exactly(fused: bool | None) -> None:
    straight, resumed = network(), network()
    train(straight, MuonWithAdamW(straight.parameters(), **SETTINGS, fused=fused), steps=range(6))
    first = MuonWithAdamW(resumed.parameters(), **SETTINGS, fused=fused)
    train(resumed, first, steps=range(3))
    second = MuonWithAdamW(resumed.parameters(), **SETTINGS, fused=fused)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(resumed, second, steps=range(3, 6))
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("setting", "value"), [("momentum", 1.0), ("momentum", "x"), ("least_channels", 0)])
def test_impossible_settings_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^optimizer.{setting}: must be"):
        MuonWithAdamW(network().parameters(), **{setting: value})


@pytest.mark.parametrize("optimization", ["alternating", "joint", "sequential"])
def test_every_mode_trains_with_it(tiny, batches, fit, copied, optimization: str) -> None:
    task = build_task(optimization=optimization, **tiny)
    task.optimizer_factory = partial(MuonWithAdamW, lr=0.01)
    before = copied(task.network)
    trainer = fit(task, batches, max_epochs=2)
    states = [item for optimizer in trainer.optimizers for item in optimizer.state.items()]
    kernels = {id(parameter) for parameter, state in states if "momentum" in state}
    trained = {name: p for name, p in task.network.named_parameters() if id(p) in kernels}
    assert len(trained) > 10
    assert all(p.shape[2:] == (3, 3) for p in trained.values())
    assert not any(torch.equal(p, before[name]) for name, p in trained.items())


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
