from __future__ import annotations

import pytest
import torch

from d2csr import load_model
from d2csr.errors import ConfigError
from d2csr.models import D2CSR

TINY = {"features": 16, "groups": 1, "blocks": 1, "fusion_features": 8}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_fused_image_is_the_official_one(scale, golden, golden_arrays, off_by):
    arrays = golden_arrays(f"net-x{scale}-f16-b1.npz")
    with torch.no_grad():
        sr = load_model(golden / f"net-x{scale}-f16-b1.pkl")(arrays["lr"])
    assert off_by(sr, arrays["sr"]) < 1e-4


def test_the_papers_settings_give_the_official_number_of_parameters():
    model = D2CSR()
    assert count(model.divergence) == 5_723_492
    assert count(model.convergence) == 46_080
    assert count(model) == 5_769_572


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize(("branching", "leaves"), [([2, 2], 4), ([4], 4), ([3, 3], 9), ([2, 2, 2], 8), ([1], 1)])
def test_shapes(scale, branching, leaves):
    model = D2CSR(scale=scale, branching=branching, **TINY)
    with torch.no_grad():
        predictions = model.divergence(torch.rand(2, 3, 4, 3))
        sr, weights = model.convergence(predictions)
    assert predictions.shape == (2, leaves, 3, 4 * scale, 3 * scale)
    assert weights.shape == (2, leaves, 4 * scale, 3 * scale)
    assert sr.shape == (2, 3, 4 * scale, 3 * scale)
    assert model.tree.num_leaves == leaves


def test_the_model_is_divergence_then_convergence():
    model = D2CSR(**TINY)
    lr = torch.rand(1, 3, 5, 7)
    assert torch.equal(model(lr), model.convergence(model.divergence(lr))[0])


def test_its_settings_build_the_same_architecture():
    model = D2CSR(scale=3, branching=(3, 2), reduction=8, **TINY)
    again = D2CSR(**model.settings)
    assert again.settings == model.settings
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in again.state_dict().items()}


def test_its_settings_are_plain_values():
    settings = D2CSR(branching=(2, 2), **TINY).settings
    assert settings["branching"] == [2, 2]
    assert {type(value) for value in settings.values()} == {int, list}


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = D2CSR(scale=2, branching=[2, 1], **TINY)
    model(torch.rand(1, 3, 6, 6)).sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 5}, "scale: must be one of 2, 3, 4, 8, got 5"),
        ({"scale": "4"}, "scale: must be one of 2, 3, 4, 8, got '4'"),
        ({"scale": 4.0}, "scale: must be one of 2, 3, 4, 8, got 4.0"),
        ({"branching": []}, "branching: expected one whole number from 1 to 9 for each level"),
        ({"branching": [0]}, "branching: expected one whole number from 1 to 9 for each level"),
        ({"branching": ["2"]}, "branching: expected one whole number from 1 to 9 for each level"),
        ({"branching": 2}, "branching: expected one whole number from 1 to 9 for each level"),
        ({"features": 8}, "features: channel attention narrows them by 16 (reduction)"),
        ({"features": 0}, "features: must be a positive whole number, got 0"),
        ({"features": "64"}, "features: must be a positive whole number, got '64'"),
        ({"groups": 0}, "groups: must be a positive whole number, got 0"),
        ({"blocks": -1}, "blocks: must be a positive whole number, got -1"),
        ({"blocks": 1.5}, "blocks: must be a positive whole number, got 1.5"),
        ({"reduction": 0}, "reduction: must be a positive whole number, got 0"),
        ({"fusion_features": None}, "fusion_features: must be a positive whole number, got None"),
    ],
)
def test_an_impossible_setting_is_named(settings, message):
    with pytest.raises(ConfigError) as error:
        D2CSR(**settings)
    assert message in str(error.value)
