from __future__ import annotations

import pytest
import torch

from d2csr import load_model
from d2csr.errors import ConfigError
from d2csr.models import D2CSR

TINY = {
    "scale": 2,
    "features": 16,
    "branching": [2, 2],
    "fusion_features": 8,
    "body": {"name": "rcab", "groups": 1, "blocks": 1},
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_fused_image_is_the_official_one(scale, golden, golden_arrays, off_by):
    arrays = golden_arrays(f"net-x{scale}-f16-b1.npz")
    with torch.no_grad():
        sr = load_model(golden / f"net-x{scale}-f16-b1.pkl")(arrays["lr"])
    assert off_by(sr, arrays["sr"]) < 1e-4


def test_the_papers_settings_give_the_official_number_of_parameters():
    model = D2CSR(scale=4, features=64, branching=[2, 2], fusion_features=64)
    assert count(model.divergence) == 5_723_492
    assert count(model.convergence) == 46_080
    assert count(model) == 5_769_572


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize(("branching", "leaves"), [([2, 2], 4), ([4], 4), ([3, 3], 9), ([2, 2, 2], 8), ([1], 1)])
def test_shapes(scale, branching, leaves):
    model = D2CSR(**TINY | {"scale": scale, "branching": branching})
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
    model = D2CSR(**TINY | {"scale": 3, "branching": (3, 2), "body": {"name": "rcab", "reduction": 8}})
    again = D2CSR(**model.settings)
    assert again.settings == model.settings
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in again.state_dict().items()}


def test_its_settings_are_plain_values():
    settings = D2CSR(**TINY | {"branching": (2, 2)}).settings
    assert settings["branching"] == [2, 2]
    assert settings["body"] == {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 16}
    assert {type(value) for value in settings.values()} == {int, list, dict}


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = D2CSR(**TINY | {"branching": [2, 1]})
    model(torch.rand(1, 3, 6, 6)).sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 5}, "scale: must be one of 2, 3, 4, 8, got 5"),
        ({"scale": "4"}, "scale: must be one of 2, 3, 4, 8, got '4'"),
        ({"scale": 4.0}, "scale: must be one of 2, 3, 4, 8, got 4.0"),
        ({"branching": []}, "branching: must be a list of one whole number for each level, got []"),
        ({"branching": [0]}, "branching: must be a whole number from 1 to 9, got 0"),
        ({"branching": ["2"]}, "branching: must be a whole number from 1 to 9, got '2'"),
        ({"branching": [True]}, "branching: must be a whole number from 1 to 9, got True"),
        ({"branching": 2}, "branching: must be a list of one whole number for each level, got 2"),
        ({"features": 8}, "body.reduction: must not exceed the number of features, 8, got 16"),
        ({"features": 0}, "features: must be a whole number from 1 up, got 0"),
        ({"features": "64"}, "features: must be a whole number from 1 up, got '64'"),
        ({"features": 64.5}, "features: must be a whole number from 1 up, got 64.5"),
        ({"fusion_features": None}, "fusion_features: must be a whole number from 1 up, got None"),
        ({"body": {"name": "rcab", "groups": 0}}, "body.groups: must be a whole number from 1 up, got 0"),
        ({"body": {"name": "rcab", "blocks": 1.5}}, "body.blocks: must be a whole number from 1 up, got 1.5"),
        ({"body": {"name": "rcab", "reduction": 0}}, "body.reduction: must be a whole number from 1 up, got 0"),
        ({"body": {"name": "rcab", "depth": 3}}, "body.depth: the body 'rcab' has no such setting"),
        ({"body": {"name": "rcab", "groups": {}}}, "body.groups: must be a number, a string"),
        ({"body": "mine"}, "body.name: must be one of rcab, got 'mine'"),
        ({"body": 3}, "body: must hold a name and the settings of a body, got 3"),
    ],
)
def test_an_impossible_setting_is_named(settings, message):
    with pytest.raises(ConfigError) as error:
        D2CSR(**TINY | settings)
    assert message in str(error.value)
