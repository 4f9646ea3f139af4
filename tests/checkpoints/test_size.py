from __future__ import annotations

import pytest
import torch
from torch import nn

from d2csr.checkpoints.size import bounded_construction, check_size
from d2csr.errors import ConfigError
from d2csr.models import build_network

PAPER = {"scale": 4, "features": 64, "branching": [2, 2], "fusion_features": 64}


NETWORKS = [
    *(
        {"scale": scale, "features": 16, "branching": branching, "fusion_features": 6, "body": body}
        for scale, branching in ((2, [1]), (3, [3]), (4, [2, 2]), (8, [2, 1, 3]))
        for body in ("rcab", {"name": "rcab", "groups": 3, "blocks": 2, "reduction": 5})
    ),
    *(
        {"architecture": "ensemble", "scale": scale, "features": 16, "body": "rcab", "paths": paths}
        for scale, paths in ((2, 1), (3, 4), (8, 2))
    ),
]


@pytest.mark.parametrize("settings", NETWORKS)
def test_a_checkpoint_with_as_many_numbers_passes_and_with_one_less_does_not(settings):
    with torch.device("meta"):
        weights = build_network(settings).state_dict()
    check_size(settings, weights)
    name = next(iter(weights))
    with pytest.raises(ConfigError, match=r"its settings need more than its .* tensors of .* numbers"):
        check_size(settings, {**weights, name: weights[name].flatten()[1:]})
    with pytest.raises(ConfigError, match=r"its settings need more than its .* tensors of .* numbers"):
        check_size(settings, {n: value for n, value in weights.items() if n != name} | {"x": torch.zeros(0)})


def test_a_tree_is_bounded_before_its_nodes_are_listed():
    settings = {**PAPER, "branching": [9] * 8}
    with pytest.raises(ConfigError, match="its settings need 43,046,721 leaves, and it has 4 tensors"):
        check_size(settings, {str(number): torch.zeros(1) for number in range(4)})
    with pytest.raises(ConfigError, match="branching: must be a list of 1 to 8 whole numbers"):
        check_size({**settings, "branching": [9] * 9}, {})


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


def test_an_error_of_torch_while_a_network_is_built_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(settings: object) -> None:
        torch.empty(2**40, 2**40, device="meta")

    monkeypatch.setattr("d2csr.checkpoints.size.build_network", overflow)
    with pytest.raises(ConfigError, match="a size is impossible"):
        check_size({**PAPER, "branching": [1]}, {"a": torch.zeros(1)})
