from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from d2csr.metrics.leaves import error_correlation, leaf_distances, patch_psnr, weight_entropy
from d2csr.models.tree import Tree
from fake_gpu import fake_gpu


def test_distances_are_root_mean_squares_of_sibling_and_other_pairs():
    levels = torch.tensor([0.1, 0.2, 0.5, 0.9])  # flat images: the distance of two is the difference of their greys
    predictions = levels.view(1, 4, 1, 1, 1).expand(2, 4, 3, 5, 6)
    distances = {name: value.item() for name, value in leaf_distances(predictions, Tree((2, 2))).items()}
    same, diff = [0.1, 0.4], [0.4, 0.8, 0.3, 0.7]
    assert distances == pytest.approx(
        {"distance": sum(same + diff) / 6, "distance_same": sum(same) / 2, "distance_diff": sum(diff) / 4}
    )


def test_a_distance_is_that_of_numpy():
    predictions = torch.rand(2, 2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    a, b = predictions.unbind(dim=1)
    expected = math.sqrt(np.mean((a.numpy() - b.numpy()) ** 2))
    assert leaf_distances(predictions, Tree((2,)))["distance"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("branching", "names"),
    [((1,), set()), ((4,), {"distance", "distance_same"}), ((3, 1), {"distance", "distance_diff"})],
)
def test_no_pair_gives_no_distance(branching, names):
    tree = Tree(branching)
    assert leaf_distances(torch.rand(1, tree.num_leaves, 3, 4, 4), tree).keys() == names


def test_the_error_correlation_is_that_of_numpy_in_strips_of_any_height(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hr, common = torch.rand(2, 1, 3, 13, 6, generator=generator), torch.rand(2, 1, 3, 13, 6, generator=generator)
    predictions = (
        hr
        + 0.1 * common
        + torch.tensor([0.02, 0.1, 0.3]).view(1, 3, 1, 1, 1) * torch.rand(2, 3, 3, 13, 6, generator=generator)
    )
    errors = (predictions - hr).transpose(0, 1).flatten(1).double().numpy()
    expected = np.corrcoef(errors)[np.triu_indices(3, 1)].mean()
    assert 0.2 < expected < 0.8
    monkeypatch.setattr("d2csr.metrics.leaves._ROWS", 5)
    assert error_correlation(predictions, hr.squeeze(1)).item() == pytest.approx(expected)


def test_the_error_correlation_of_images_on_a_gpu_is_computed_there():
    with fake_gpu() as waits:
        predictions, hr = torch.rand(1, 4, 3, 130, 8, device="cuda"), torch.rand(1, 3, 130, 8, device="cuda")
        assert error_correlation(predictions, hr).is_cuda
        assert waits.seen == []


def test_errors_that_differ_by_a_factor_have_the_correlation_one_and_opposite_ones_minus_one():
    hr, error = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    assert error_correlation(torch.stack([hr + error, hr + 0.3 * error], dim=1), hr).item() == pytest.approx(
        1, abs=1e-5
    )
    assert error_correlation(torch.stack([hr + error, hr - error], dim=1), hr).item() == pytest.approx(-1, abs=1e-5)
    assert math.isnan(error_correlation((hr + error).unsqueeze(1), hr))


def test_the_entropy_is_one_for_the_mean_and_zero_for_a_single_leaf():
    uniform = torch.full((2, 4, 3, 3), 0.25)
    alone = torch.nn.functional.one_hot(torch.arange(9).view(1, 3, 3) % 4, 4).permute(0, 3, 1, 2).float()
    assert weight_entropy(uniform).item() == pytest.approx(1)
    assert weight_entropy(alone).item() == 0
    assert weight_entropy(torch.ones(1, 1, 3, 3)).item() == 0
    halves = torch.tensor([0.5, 0.5, 0, 0]).view(1, 4, 1, 1).expand(1, 4, 3, 3)
    assert weight_entropy(halves).item() == pytest.approx(0.5)  # of log 4
    assert weight_entropy(torch.cat([uniform[:1], halves])).item() == pytest.approx(0.75)


def test_the_patch_psnr_is_the_mean_over_clamped_images():
    hr = torch.full((2, 3, 4, 4), 0.9)
    images = torch.stack([torch.full((3, 4, 4), 0.8), torch.full((3, 4, 4), 1.7)])  # the second one is clamped to 1
    assert patch_psnr(images, hr).item() == pytest.approx(20)
    images[1] -= 0.81  # an error of 0.01
    assert patch_psnr(images, hr).item() == pytest.approx((20 + 40) / 2, abs=1e-3)
