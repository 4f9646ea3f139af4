from __future__ import annotations

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.models import PathEnsemble, SRNetwork, build_network
from d2csr.models.ensemble import MeanFusion

EDSR_BASELINE = {"name": "edsr", "blocks": 16}


def small(paths: int = 1, scale: int = 2) -> PathEnsemble:
    return PathEnsemble(scale, 8, {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 2}, paths)


def test_a_single_path_with_the_body_of_edsr_is_edsr_baseline():
    """1,517,571 parameters (https://github.com/znsc/MSRResNet) beside the two colour shifts, which EDSR fixes."""
    with torch.device("meta"):
        network = PathEnsemble(4, 64, EDSR_BASELINE)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_517_571 + 2 * 12


def test_a_single_path_computes_what_its_layers_compute_in_a_row():
    network = small()
    parts = network.divergence
    lr = torch.rand(2, 3, 7, 5)
    with torch.no_grad():
        shallow = parts.heads["1"](parts.input_shifts["1"](lr))
        expected = parts.output_shifts["1"](parts.tails["1"](parts.bodies["1"](shallow) + shallow))
        sr, weights = network.convergence(network.divergence(lr))
        assert torch.equal(network(lr), expected)
    assert torch.equal(sr, expected)
    assert torch.equal(weights, torch.ones(2, 1, 14, 10))


def test_an_ensemble_is_the_mean_of_networks_of_their_own():
    ensemble, lr = small(3), torch.rand(1, 3, 6, 9)
    alone = []
    for path in ("1", "2", "3"):
        network = small()
        weights = {
            name.replace(f".{path}.", ".1.", 1): value
            for name, value in ensemble.state_dict().items()
            if name.split(".")[2] == path
        }
        network.load_state_dict(weights)
        alone.append(network(lr))
    torch.testing.assert_close(ensemble(lr), sum(alone) / 3)


def test_the_paths_share_no_parameter():
    ensemble = small(3)
    ensemble.divergence(torch.rand(1, 3, 4, 4))[:, 1].sum().backward()
    for name, parameter in ensemble.named_parameters():
        assert bool(parameter.grad.any()) == (name.split(".")[2] == "2"), name


def test_a_mean_of_16_bit_predictions_has_single_precision():
    predictions = torch.rand(1, 4, 3, 5, 5).bfloat16()
    sr, weights = MeanFusion()(predictions)
    assert (sr.dtype, weights.dtype, weights.shape) == (torch.float32, torch.float32, (1, 4, 5, 5))
    torch.testing.assert_close(sr, predictions.float().mean(dim=1))
    assert torch.equal(weights.unique(), torch.tensor([0.25]))


def test_it_is_rebuilt_from_its_settings():
    network = small(2, scale=3)
    again = build_network(network.settings)
    assert isinstance(again, PathEnsemble)
    assert isinstance(again, SRNetwork)
    assert again.settings == network.settings
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(("paths", "message"), [(0, "paths: "), (10, "paths: "), (2.5, "paths: "), ("2", "paths: ")])
def test_an_impossible_number_of_paths_is_named(paths, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        PathEnsemble(2, 8, EDSR_BASELINE, paths)


def test_an_unknown_architecture_is_named():
    with pytest.raises(ConfigError, match="architecture: must be one of d2csr, ensemble, got 'unet'"):
        build_network({"architecture": "unet", "scale": 2})
