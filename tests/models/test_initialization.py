from __future__ import annotations

import pytest
import torch

from d2csr.models import D2CSR
from d2csr.models.initialization import initialize_as_official


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
