from __future__ import annotations

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.models import D2CSR
from d2csr.models.ensemble import PathEnsemble
from d2csr.models.initialization import initialize_as_interpolation, initialize_as_official

BODY = {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 4}


@pytest.fixture(scope="module")
def official():
    torch.manual_seed(0)
    model = D2CSR(scale=4, features=64, branching=[2, 2], fusion_features=64)
    initialize_as_official(model)
    return model


def test_official_weights_have_the_variance_of_one_over_fan_in(official):
    """The standard error of a variance from n draws of a normal distribution is sqrt(2 / n) of it."""
    large = {name: weight for name, weight in official.named_parameters() if weight.ndim == 4 and weight.numel() > 1000}
    assert len(large) > 80
    for name, weight in large.items():
        fan_in = weight.shape[1] * weight.shape[2] * weight.shape[3]
        tolerance = 5 * (2 / weight.numel()) ** 0.5
        assert weight.var().item() * fan_in == pytest.approx(1, abs=tolerance), name
        assert abs(weight.mean().item()) < 5 * (fan_in * weight.numel()) ** -0.5, name


def test_official_weights_are_normal_and_not_uniform(official):
    every = torch.cat([weight.flatten() * weight[0].numel() ** 0.5 for weight in convolutions(official)])
    assert every.pow(4).mean().item() == pytest.approx(3, abs=0.05)  # 1.8 for a uniform distribution


def test_official_biases_are_zero(official):
    biases = [bias for name, bias in official.named_parameters() if name.endswith("bias")]
    assert len(biases) > 80
    assert not any(bias.any() for bias in biases)


def test_official_colour_shifts_are_random_matrices(official):
    for shift in (official.divergence.input_shift, official.divergence.output_shift):
        assert shift.weight[:, :, 0, 0].diagonal().ne(1).all()
        assert shift.weight.count_nonzero() == 9


def test_linear_layers_of_other_bodies_are_drawn_too():
    model = D2CSR(2, 16, [2, 2], 8, "swin")
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    before = layer.weight.clone()
    initialize_as_official(model)
    assert not torch.equal(layer.weight, before)
    assert not layer.bias.any()


def convolutions(model):
    return [weight for weight in model.parameters() if weight.ndim == 4]


def parabola(side: int, scale: int = 1) -> torch.Tensor:
    """Return a quadratic function of the position, 1×3×side×side, at the centres of pixels of 1/scale."""
    position = (torch.arange(side * scale) + 0.5) / scale / side
    y, x = position.view(-1, 1), position.view(1, -1)
    grey = 0.2 + 0.3 * x - 0.5 * y * y + 0.4 * x * x + 0.1 * x * y
    return torch.stack([grey, 1 - grey, 0.5 * grey]).unsqueeze(0)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@torch.no_grad()
def test_each_leaf_starts_as_the_interpolated_image(scale):
    """A parabola through three pixels is exact for a quadratic function, except at the border, which is padded."""
    model = D2CSR(scale=scale, features=8, branching=[2, 2], fusion_features=8, body=BODY)
    initialize_as_interpolation(model)
    lr, hr, border = parabola(16), parabola(16, scale), 2 * scale
    inner = (..., slice(border, -border), slice(border, -border))
    for image in (*model.divergence(lr).unbind(dim=1), model(lr)):
        assert (image - hr)[inner].abs().max() < 1e-5


def test_all_parts_train_after_it():
    torch.manual_seed(0)
    model = D2CSR(scale=2, features=8, branching=[2, 2], fusion_features=8, body=BODY)
    initialize_as_interpolation(model)
    before = {name: value.clone() for name, value in model.divergence.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    lr, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    for _ in range(3):
        optimizer.zero_grad()
        (model.divergence(lr) - hr.unsqueeze(1)).square().mean().backward()
        optimizer.step()
    assert not [name for name, value in model.divergence.named_parameters() if torch.equal(value, before[name])]


def test_it_needs_a_tree_and_three_features():
    with pytest.raises(ConfigError, match="init: interpolation needs the skips of a tree"):
        initialize_as_interpolation(PathEnsemble(scale=2, features=8, body=BODY))
    with pytest.raises(ConfigError, match=r"init: interpolation needs model\.network\.features of at least 3, got 2"):
        initialize_as_interpolation(D2CSR(2, 2, [2, 2], 8, {**BODY, "reduction": 1}))
