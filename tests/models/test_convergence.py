from __future__ import annotations

import pytest
import torch

from d2csr import load_model
from d2csr.models import ConvergenceNetwork


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_weights_and_image_of_the_official_predictions_are_the_official_ones(
    scale, golden, golden_arrays, stacked, off_by
):
    arrays = golden_arrays(f"net-x{scale}-f16-b1.npz")
    with torch.no_grad():
        sr, weights = load_model(golden / f"net-x{scale}-f16-b1.pkl").convergence(stacked(arrays, "pred"))
    assert off_by(weights, arrays["weights"]) < 1e-4
    assert off_by(sr, arrays["sr"]) < 1e-4


@pytest.mark.parametrize("leaves", [1, 4, 9])
def test_weights_are_positive_and_sum_to_one_at_each_pixel(leaves):
    sr, weights = ConvergenceNetwork(leaves, features=8)(torch.rand(2, leaves, 3, 6, 5))
    assert sr.shape == (2, 3, 6, 5)
    assert weights.shape == (2, leaves, 6, 5)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 6, 5))


def test_a_single_prediction_is_the_result():
    prediction = torch.rand(1, 1, 3, 6, 5)
    sr, _ = ConvergenceNetwork(1, features=8)(prediction)
    torch.testing.assert_close(sr, prediction[:, 0])


def test_the_last_layer_is_followed_by_a_relu():
    network = ConvergenceNetwork(3, features=4)
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.fill_(1.0)
        network.layers[-1].weight[1] = -1.0
        network.layers[-1].weight[2] = 0.0
        _, weights = network(torch.full((1, 3, 3, 3, 3), 1e-5))
    positive, negative, zero = weights.unbind(dim=1)
    torch.testing.assert_close(negative, zero)
    assert (positive > zero).all()


def test_convolutions_have_no_bias():
    assert [name for name, _ in ConvergenceNetwork(4, features=64).named_parameters()] == [
        "layers.0.weight",
        "layers.1.weight",
        "layers.2.weight",
    ]
