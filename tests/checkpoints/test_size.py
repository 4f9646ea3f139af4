from __future__ import annotations

import pytest
import torch
from torch import nn

from d2csr.checkpoints.size import bounded_construction, check_size, count_parameters
from d2csr.errors import ConfigError
from d2csr.models import D2CSR, build_network

PAPER = {"scale": 4, "features": 64, "branching": [2, 2], "fusion_features": 64}


def test_the_network_of_the_paper_has_its_number_of_parameters():
    assert count_parameters(**PAPER) == 5_769_572


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("branching", [[1], [3], [2, 2], [2, 1, 3]])
@pytest.mark.parametrize("body", ["rcab", {"name": "rcab", "groups": 3, "blocks": 2, "reduction": 5}])
def test_the_computed_number_of_parameters_is_that_of_the_network(scale, branching, body):
    settings = {"scale": scale, "features": 16, "branching": branching, "fusion_features": 6, "body": body}
    with torch.device("meta"):
        network = D2CSR(**settings)
    assert count_parameters(**settings) == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("scale", "paths"), [(2, 1), (3, 4), (8, 2)])
def test_the_computed_number_of_parameters_of_paths_is_that_of_the_network(scale, paths):
    settings = {"architecture": "ensemble", "scale": scale, "features": 16, "body": "rcab", "paths": paths}
    with torch.device("meta"):
        network = build_network(settings)
    assert count_parameters(**settings) == sum(parameter.numel() for parameter in network.parameters())


def test_a_checkpoint_with_as_many_numbers_passes_and_with_one_less_does_not():
    settings = {**PAPER, "features": 16}
    weights = D2CSR(**settings).state_dict()
    check_size(settings, weights)
    name = next(iter(weights))
    with pytest.raises(ConfigError, match=r"its settings need .* parameters, its weights are"):
        check_size(settings, {**weights, name: weights[name].flatten()[1:]})


def test_construction_stops_at_the_bound():
    built = []

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            built.append(1)
            self.layer = nn.Linear(2, 2)

    with pytest.raises(ConfigError, match="its settings need more than its 4 tensors"), bounded_construction(4, 1000):
        nn.Sequential(*(Block() for _ in range(100)))
    assert len(built) == 3
    with pytest.raises(ConfigError, match="of 10 numbers"), bounded_construction(100, 10):
        nn.Sequential(*(Block() for _ in range(100)))
    with pytest.raises(ConfigError), bounded_construction(0, 0):
        nn.Sequential(*(nn.ReLU() for _ in range(2000)))
    nn.Linear(9, 9)  # the bound is gone
