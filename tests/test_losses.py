from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from d2csr.errors import ConfigError
from d2csr.losses import (
    Charbonnier,
    DivergenceLoss,
    PerceptualLoss,
    WeightedSum,
    _pairs,
    divergence_loss,
    sum_over_leaves,
)
from d2csr.metrics.iqa import LPIPS
from d2csr.models import Tree
from fake_gpu import fake_gpu

GOLDENS = ["default", "config", "wide"]
MARGINS = {"margin_same": 0.3, "margin_diff": 0.7}


def golden_loss(arrays, predictions):
    settings = {key: arrays[key].item() for key in ("weight", "margin_same", "margin_diff", "decay_rate")}
    return divergence_loss(predictions, arrays["hr"], **settings)


def naive_loss(predictions, hr, leaves, *, weight, margin_same, margin_diff, decay_rate, error_term=True):
    """The formula of the paper, pair by pair in double precision; kinship is read off the leaves' names."""

    def z(image):
        grey = image.mean(axis=1)
        return (grey - grey.mean()) / np.sqrt(((grey - grey.mean()) ** 2).mean())

    predictions, hr = predictions.double().numpy(), hr.double().numpy()
    d = [np.abs(z(predictions[:, k]) - z(hr)) for k in range(len(leaves))]
    total, pairs = 0.0, 0
    for k, first in enumerate(leaves):
        for j, second in enumerate(leaves):
            if k == j:
                continue
            same = first[:-1] == second[:-1]
            margin, factor = (margin_same, decay_rate) if same else (margin_diff, 1.0)
            own = (d[k] ** 2).mean() if error_term else 0.0
            total += factor * max(0.0, own - ((d[k] - d[j]) ** 2).mean() + margin)
            pairs += 1
    return weight * total / pairs


@pytest.mark.parametrize("name", GOLDENS)
def test_the_divergence_loss_is_the_official_one(name, golden_arrays, stacked):
    arrays = golden_arrays(f"divergence-loss-{name}.npz")
    assert golden_loss(arrays, stacked(arrays, "pred")).item() == pytest.approx(arrays["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("name", GOLDENS)
def test_the_divergence_loss_has_the_official_gradients(name, golden_arrays, stacked):
    arrays = golden_arrays(f"divergence-loss-{name}.npz")
    predictions = stacked(arrays, "pred").requires_grad_()
    golden_loss(arrays, predictions).backward()
    expected = stacked(arrays, "grad")
    assert expected.abs().max() > 0
    assert (predictions.grad - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("branching", [(2, 2), (4,), (3, 3), (2, 2, 2), (3, 1), (1, 3), (2, 3)])
def test_margins_and_factors_depend_on_common_parents(branching):
    torch.manual_seed(0)
    tree = Tree(branching)
    predictions, hr = torch.rand(2, tree.num_leaves, 3, 6, 5), torch.rand(2, 3, 6, 5)
    settings = {"weight": 0.7, "margin_same": 0.2, "margin_diff": 0.9, "decay_rate": 0.5}
    loss = divergence_loss(predictions, hr, **settings, branching=branching)
    assert loss.item() == pytest.approx(naive_loss(predictions, hr, tree.leaves, **settings), rel=1e-5)


def test_without_the_error_term_the_margin_alone_is_compared():
    torch.manual_seed(0)
    predictions, hr = torch.rand(2, 4, 3, 8, 8), torch.rand(2, 3, 8, 8)
    settings = {"weight": 0.7, "margin_same": 0.3, "margin_diff": 1.2, "decay_rate": 0.8, "error_term": False}
    loss = divergence_loss(predictions, hr, **settings)
    expected = naive_loss(predictions, hr, Tree().leaves, **settings)
    assert 0 < expected < naive_loss(predictions, hr, Tree().leaves, **settings | {"error_term": True})
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    # Leaves that differ by more than the margins, as those of the paper's settings do, have neither loss nor gradient.
    predictions.requires_grad_()
    small = DivergenceLoss([2, 2], 2e-5, 5e-5, 0.8, "batch", error_term=False)(predictions, hr)
    small.backward()
    assert small == 0
    assert predictions.grad.count_nonzero() == 0


def test_negative_terms_are_zero():
    torch.manual_seed(0)
    predictions, hr = torch.rand(1, 4, 3, 8, 8), torch.rand(1, 3, 8, 8)
    settings = {"weight": 1.0, "margin_same": -0.1, "margin_diff": -0.2, "decay_rate": 0.8}
    loss = divergence_loss(predictions, hr, **settings)
    assert loss.item() == pytest.approx(naive_loss(predictions, hr, Tree().leaves, **settings), rel=1e-5)
    assert divergence_loss(predictions, hr, weight=1.0, margin_same=-9.0, margin_diff=-9.0) == 0


def test_the_default_decay_rate_is_four_fifths():
    torch.manual_seed(0)
    predictions, hr = torch.rand(1, 2, 3, 8, 8), torch.rand(1, 3, 8, 8)
    default = divergence_loss(predictions, hr, weight=1.0, **MARGINS, branching=(2,))
    full = divergence_loss(predictions, hr, weight=1.0, **MARGINS, decay_rate=1.0, branching=(2,))
    assert (default / full).item() == pytest.approx(0.8)


def test_the_loss_is_computed_over_the_whole_batch():
    torch.manual_seed(0)
    predictions, hr = torch.rand(2, 4, 3, 8, 8), torch.rand(2, 3, 8, 8)
    hr[1] *= 0.1
    whole = divergence_loss(predictions, hr, weight=1.0, **MARGINS)
    parts = [divergence_loss(predictions[i : i + 1], hr[i : i + 1], weight=1.0, **MARGINS) for i in range(2)]
    assert whole.item() != pytest.approx(torch.stack(parts).mean().item(), rel=1e-3)


def test_the_loss_of_one_leaf_is_zero():
    predictions = torch.rand(2, 1, 3, 4, 4, requires_grad=True)
    loss = divergence_loss(predictions, torch.rand(2, 3, 4, 4), weight=1.0, **MARGINS, branching=(1,))
    loss.backward()
    assert loss == 0
    assert torch.equal(predictions.grad, torch.zeros_like(predictions))


@pytest.mark.parametrize("flat", ["hr", "predictions", "both"])
def test_flat_images_give_a_finite_loss_and_gradient(flat):
    torch.manual_seed(0)
    hr = torch.full((1, 3, 4, 4), 0.5) if flat in ("hr", "both") else torch.rand(1, 3, 4, 4)
    predictions = torch.full((1, 4, 3, 4, 4), 0.5) if flat in ("predictions", "both") else torch.rand(1, 4, 3, 4, 4)
    predictions.requires_grad_()
    loss = divergence_loss(predictions, hr, weight=1.0, **MARGINS)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(predictions.grad).all()


def test_the_loss_of_half_precision_is_float32():
    torch.manual_seed(0)
    predictions, hr = torch.rand(1, 4, 3, 8, 8).half(), torch.rand(1, 3, 8, 8).half()
    settings = {"weight": 1e-4, "margin_same": 1e-5, "margin_diff": 2e-5, "decay_rate": 0.8}
    loss = divergence_loss(predictions, hr, **settings)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_loss(predictions, hr, Tree().leaves, **settings), rel=1e-5)


def test_another_number_of_leaves_than_predictions_is_refused():
    with pytest.raises(ValueError, match=r"branching \[3\] has 3 leaves, not 4"):
        divergence_loss(torch.rand(1, 4, 3, 4, 4), torch.rand(1, 3, 4, 4), weight=1.0, **MARGINS, branching=[3])


def test_another_size_of_hr_is_refused():
    with pytest.raises(ValueError, match=r"hr cannot be \(1, 3, 4, 5\)"):
        divergence_loss(torch.rand(1, 4, 3, 4, 4), torch.rand(1, 3, 4, 5), weight=1.0, **MARGINS)


@pytest.mark.parametrize("leaves", [1, 4, 9])
def test_reconstruction_is_the_sum_over_the_leaves_of_their_mean_squared_errors(leaves):
    torch.manual_seed(0)
    predictions, hr = torch.rand(2, leaves, 3, 5, 4), torch.rand(2, 3, 5, 4)
    expected = sum(((predictions[:, k] - hr).double().numpy() ** 2).mean() for k in range(leaves))
    assert sum_over_leaves(F.mse_loss, predictions, hr).item() == pytest.approx(expected, rel=1e-5)


def test_charbonnier_is_the_mean_of_a_smooth_absolute_value():
    torch.manual_seed(0)
    sr, hr = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 5, 4)
    difference = (sr - hr).double().numpy()
    assert Charbonnier(eps=0.1)(sr, hr).item() == pytest.approx(np.sqrt(difference**2 + 0.01).mean(), rel=1e-5)
    assert Charbonnier()(hr, hr).item() == pytest.approx(1e-3)
    with pytest.raises(ConfigError, match=r"^eps: must be a number above 0, got 0"):
        Charbonnier(eps=0)


def test_a_weighted_sum_adds_its_losses():
    torch.manual_seed(0)
    sr, hr = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 5, 4)
    loss = WeightedSum([torch.nn.L1Loss(), torch.nn.MSELoss()], [2.0, 0.5])
    expected = 2 * (sr - hr).abs().mean() + 0.5 * (sr - hr).square().mean()
    assert loss(sr, hr).item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ConfigError, match=r"^weights: must be one number for each of 1 losses"):
        WeightedSum([torch.nn.L1Loss()], [1.0, 2.0])
    with pytest.raises(ConfigError, match=r"^losses: must be a list of torch\.nn\.Module"):
        WeightedSum([3], [1.0])


def test_the_perceptual_loss_is_the_mean_lpips_and_trains_the_image_alone(monkeypatch):
    torch.manual_seed(0)
    backbone = torchvision.models.alexnet(weights=None)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: backbone)
    hr = torch.rand(2, 3, 40, 40)
    sr = (hr + 0.1 * torch.randn_like(hr)).clamp(0, 1).requires_grad_()
    loss, metric = PerceptualLoss(), LPIPS()
    value = loss(sr, hr)
    expected = torch.stack([metric(sr[i : i + 1], hr[i : i + 1]) for i in range(2)]).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    assert sr.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_the_divergence_loss_as_a_module_has_the_weight_one():
    torch.manual_seed(0)
    predictions, hr = torch.rand(2, 4, 3, 6, 5), torch.rand(2, 3, 6, 5)
    settings = {"margin_same": 9.0, "margin_diff": 0.5, "decay_rate": 0.7, "scope": "image"}
    for branching in ((2, 2), (4,)):
        loss = DivergenceLoss(branching=branching, **settings)(predictions, hr)
        assert loss == divergence_loss(predictions, hr, weight=1.0, branching=branching, **settings)
    for name, value in (("margin_same", -1), ("decay_rate", "0.8"), ("scope", "pixel"), ("branching", [0])):
        with pytest.raises(ConfigError, match=f"^{name}: must be"):
            DivergenceLoss(**{"branching": [2, 2], **settings, name: value})


SCOPED = {"weight": 0.7, "margin_same": 0.2, "margin_diff": 0.9, "decay_rate": 0.5}


def uneven(images, leaves):
    """A batch whose images differ in brightness and contrast, so that it matters what is standardised together."""
    generator = torch.Generator().manual_seed(0)
    contrast = torch.logspace(-2, 0, images).view(-1, 1, 1, 1)
    hr = torch.rand(images, 3, 6, 5, generator=generator) * contrast + torch.rand(images, 1, 1, 1, generator=generator)
    noise = torch.randn(images, leaves, 3, 6, 5, generator=generator)
    return hr.unsqueeze(1) + 0.3 * contrast.unsqueeze(1) * noise, hr


@pytest.mark.parametrize("branching", [(2, 2), (3,), (2, 3)])
def test_the_scope_image_is_the_mean_over_separate_images(branching):
    tree = Tree(branching)
    predictions, hr = uneven(3, tree.num_leaves)
    alone = [naive_loss(predictions[i : i + 1], hr[i : i + 1], tree.leaves, **SCOPED) for i in range(3)]
    loss = divergence_loss(predictions, hr, **SCOPED, branching=branching, scope="image")
    assert loss.item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    whole = divergence_loss(predictions, hr, **SCOPED, branching=branching, scope="batch")
    assert whole.item() == pytest.approx(naive_loss(predictions, hr, tree.leaves, **SCOPED), rel=1e-5)
    assert abs(whole.item() - loss.item()) > 0.01 * loss.item()


def test_the_scope_image_gives_each_image_its_own_gradient():
    predictions, hr = uneven(3, 4)
    joint = predictions.clone().requires_grad_()
    divergence_loss(joint, hr, **SCOPED, scope="image").backward()
    for i in range(3):
        alone = predictions[i : i + 1].clone().requires_grad_()
        divergence_loss(alone, hr[i : i + 1], **SCOPED).backward()
        assert alone.grad.abs().max() > 0
        assert torch.allclose(joint.grad[i] * 3, alone.grad[0], rtol=1e-4, atol=1e-7)


def test_a_flat_image_changes_no_other_in_the_scope_image():
    predictions, hr = uneven(2, 4)
    predictions[0], hr[0] = 0.5, 0.5
    predictions.requires_grad_()
    loss = divergence_loss(predictions, hr, **SCOPED, scope="image")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(predictions.grad).all()


def test_an_unknown_scope_is_named():
    with pytest.raises(ConfigError, match=r"^scope: must be one of batch, image, got 'pixel'"):
        divergence_loss(torch.rand(1, 4, 3, 4, 4), torch.rand(1, 3, 4, 4), **SCOPED, scope="pixel")


def test_a_loss_that_was_first_computed_in_inference_mode_trains_afterwards():
    settings = {"weight": 1.0, "margin_same": 0.123, "margin_diff": 0.456}  # of no other test: constants are cached
    predictions, hr = torch.rand(1, 4, 3, 5, 5), torch.rand(1, 3, 5, 5)
    with torch.inference_mode():
        before = divergence_loss(predictions, hr, **settings)
    predictions.requires_grad_()
    loss = divergence_loss(predictions, hr, **settings)
    loss.backward()
    assert loss.item() == before.item()
    assert predictions.grad is not None
    assert predictions.grad.abs().max() > 0


@pytest.mark.parametrize("scope", ["batch", "image"])
def test_the_divergence_loss_never_makes_the_host_wait_after_its_first_call(scope):
    _pairs.cache_clear()
    settings = {"weight": 1.0, "margin_same": 1e-5, "margin_diff": 2e-5, "scope": scope}
    with fake_gpu() as waits:
        predictions, hr = torch.rand(2, 4, 3, 8, 8, device="cuda"), torch.rand(2, 3, 8, 8, device="cuda")
        divergence_loss(predictions, hr, **settings)
        assert waits.seen == 2 * ["a copy from cpu to cuda"]  # margins and factors
        waits.seen.clear()
        divergence_loss(predictions, hr, **settings)
        assert waits.seen == []
    _pairs.cache_clear()
