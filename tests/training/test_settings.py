from __future__ import annotations

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.losses import divergence_loss
from d2csr.training.settings import AdamSettings, DivergenceSettings


def test_the_defaults_are_the_papers():
    adam, divergence = AdamSettings(), DivergenceSettings()
    assert (adam.lr, adam.betas, adam.eps, adam.weight_decay) == (1e-4, (0.9, 0.999), 1e-8, 1e-8)
    assert (adam.schedule(0), adam.schedule(1999), adam.schedule(2000)) == (1e-4, 1e-4, 5e-5)
    assert (divergence.margin_same, divergence.margin_diff, divergence.decay_rate) == (2e-5, 5e-5, 0.8)
    assert [divergence.schedule(epoch) for epoch in (0, 200, 201, 1000, 1200, 2000)] == [0, 0, 0, 2e-5, 0, 1e-5]


def test_adam_gets_every_setting():
    settings = AdamSettings(lr=0.1, betas=[0.5, 0.6], eps=1e-3, weight_decay=0.2)
    [group] = settings.build([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.1, (0.5, 0.6), 1e-3, 0.2)


@pytest.mark.parametrize("name", ["default", "config", "wide"])
def test_the_loss_is_the_official_one_at_every_weight_of_the_schedule(name, golden_arrays, stacked):
    arrays = golden_arrays(f"divergence-loss-{name}.npz")
    keys = ("weight", "margin_same", "margin_diff", "decay_rate")
    settings = DivergenceSettings(**{key: arrays[key].item() for key in keys}, after=-1, halve_every=100)
    predictions, official = stacked(arrays, "pred"), arrays["loss"].item()
    for epoch, share in ((0, 1), (100, 0.5), (250, 0), (1000, 0.5**10)):
        loss = settings.loss(predictions, arrays["hr"], epoch=epoch, branching=(2, 2))
        assert loss.item() == pytest.approx(official * share, rel=1e-5, abs=0)


@pytest.mark.parametrize("gradient", [True, False])
def test_the_loss_has_a_gradient_unless_it_is_turned_off(gradient):
    predictions, hr = torch.rand(1, 4, 3, 4, 4, requires_grad=True), torch.rand(1, 3, 4, 4)
    settings = DivergenceSettings(weight=1.0, margin_same=1.0, margin_diff=1.0, after=-1, gradient=gradient)
    assert settings.loss(predictions, hr, epoch=0, branching=(2, 2)).requires_grad == gradient


def test_the_kinship_of_the_leaves_is_that_of_the_tree():
    torch.manual_seed(0)
    predictions, hr = torch.rand(1, 4, 3, 4, 4), torch.rand(1, 3, 4, 4)
    settings = DivergenceSettings(weight=1.0, margin_same=9.0, margin_diff=0.0, after=-1)
    all_siblings = settings.loss(predictions, hr, epoch=0, branching=(4,))
    two_and_two = settings.loss(predictions, hr, epoch=0, branching=(2, 2))
    assert all_siblings > 2 * two_and_two


def test_the_scope_is_that_of_the_settings():
    torch.manual_seed(0)
    predictions, hr = torch.rand(2, 4, 3, 4, 4), torch.rand(2, 3, 4, 4) * torch.tensor([1.0, 0.1]).view(2, 1, 1, 1)
    settings = {"weight": 1.0, "margin_same": 1.0, "margin_diff": 1.0}
    for scope in ("batch", "image"):
        loss = DivergenceSettings(**settings, after=-1, scope=scope).loss(predictions, hr, epoch=0, branching=(2, 2))
        assert loss == divergence_loss(predictions, hr, **settings, scope=scope)
    assert DivergenceSettings().scope == "batch"
    with pytest.raises(ConfigError, match=r"model\.divergence_scope: must be batch or image, got 'none'"):
        DivergenceSettings(scope="none")
