"""Networks matched to others, against FLOPs counted on real tensors, the number of parameters, and all other widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from d2csr.errors import ConfigError
from d2csr.models import build_network
from d2csr.models.matching import LR_SIZE, match_network, reference_settings

BODY = {"name": "rcab", "groups": 1, "blocks": 2, "reduction": 4}


def tree(branching: list[int], features: int = 16, body: Any = BODY) -> dict[str, Any]:
    return {
        "scale": 2,
        "features": features,
        "branching": branching,
        "fusion_features": features,
        "body": body,
    }


def paths(count: int, features: int = 16, body: Any = BODY) -> dict[str, Any]:
    return {"architecture": "ensemble", "scale": 2, "features": features, "body": body, "paths": count}


def measured(settings: dict[str, Any], quantity: str, size: int = LR_SIZE) -> int:
    """Count on a network with weights, and an image with values."""
    network = build_network(settings)
    if quantity == "parameters":
        return sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, size, size))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("network", "reference", "quantity", "most"),
    [
        (tree([2, 2]), paths(1, 24), "parameters", 10),
        (tree([2, 2]), paths(1, 40), "flops", 1),
        (paths(1), tree([2, 2]), "parameters", 2),
        (paths(1), tree([2, 2]), "flops", 3),
        (paths(3), tree([2, 2]), "flops", 3),
        (paths(4), paths(1, 48), "flops", 4),
        *((tree(branching), tree([2, 2]), "flops", 5) for branching in ([4], [2, 2, 2], [8], [2], [1])),
    ],
)
def test_a_matched_network_has_the_size_of_its_reference(
    network: dict[str, Any], reference: dict[str, Any], quantity: str, most: float
) -> None:
    match = match_network(network, reference, quantity)
    ours, theirs = measured(match.settings, quantity), measured(reference, quantity)
    assert abs(ours - theirs) / theirs * 100 < most
    assert match.difference == pytest.approx((ours - theirs) / theirs * 100)
    for name in ("parameters", "flops"):
        assert getattr(match.cost, name) == measured(match.settings, name)
        assert getattr(match.reference, name) == measured(reference, name)
    assert {**match.settings, "features": 16, "fusion_features": 16} == {**network, "fusion_features": 16}


def test_no_other_width_is_closer() -> None:
    network, reference = paths(2), tree([2, 2], 12)
    match = match_network(network, reference, "parameters", by="width")
    target = measured(reference, "parameters")
    distances = {
        features: abs(measured({**network, "features": features}, "parameters") - target) for features in range(4, 40)
    }
    assert match.changed == {"features": (16, min(distances, key=distances.__getitem__))}


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (BODY, "blocks"),
        ({"name": "edsr", "blocks": 2}, "blocks"),
        pytest.param({"name": "nafnet", "blocks": 2}, "blocks", marks=pytest.mark.slow),
        pytest.param(
            {"name": "swin", "groups": 2, "layers": 2, "heads": 2, "window": 4}, "layers", marks=pytest.mark.slow
        ),
    ],
)
def test_the_depth_of_any_body_is_found_exactly(body: dict[str, Any], key: str) -> None:
    match = match_network(tree([2], 8, body), tree([2], 8, {**body, key: 7}), "flops", by="depth")
    assert match.changed == {f"body.{key}": (body[key], 7)}
    assert (match.way, match.difference) == ("depth", 0)


def test_widths_that_a_body_does_not_allow_are_left_out() -> None:
    imdn = {"name": "imdn", "blocks": 1, "reduction": 4}
    match = match_network(paths(1, 16, imdn), paths(1, 41), "parameters")
    assert match.settings["features"] % 4 == 0
    assert match.settings["features"] != 16


def test_a_network_of_the_right_size_is_kept() -> None:
    match = match_network(tree([2, 2]), tree([2, 2]), "flops")
    assert (match.changed, match.difference) == ({}, 0)


def test_the_depth_is_used_if_no_width_fits() -> None:
    """Widths of this body are multiples of 64, a step of a factor of about 4."""
    swin = {"name": "swin", "groups": 1, "layers": 1, "heads": 64, "window": 2}
    network, reference = paths(1, 64, swin), paths(1, 64, {**swin, "layers": 4})
    match = match_network(network, reference, "parameters")
    assert (match.way, match.changed) == ("depth", {"body.layers": (1, 4)})
    with pytest.raises(ConfigError, match=r"no width of the network comes within 10 % .*features=128 has [\d,]+ par"):
        match_network(network, reference, "parameters", by="width")


def test_an_impossible_match_names_both_sizes() -> None:
    with pytest.raises(ConfigError, match=r"no depth .* reference, 0\.\d+ GFLOP: .*body\.blocks=1 has 0\.\d+ GFLOP"):
        match_network(tree([2, 2]), paths(1, 4), "flops", by="depth", tolerance=0.01)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ({"paths": 1}, paths(1)),
        ({"paths": 1, "body": {"blocks": 3}}, paths(1, body={**BODY, "blocks": 3})),
        ({"paths": 1, "body": {"name": "edsr"}, "features": 9}, paths(1, 9, {"name": "edsr"})),
        ({"branching": [4], "features": None, "body": {}}, {"architecture": "d2csr", **tree([4])}),
    ],
)
def test_a_reference_has_the_settings_of_the_network_that_it_does_not_name(
    to: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert reference_settings(tree([2, 2]), to) == expected


@pytest.mark.parametrize("body", [True, "abc", 1, [1]])
def test_a_reference_body_that_holds_no_settings_is_refused(body: Any) -> None:
    with pytest.raises(ConfigError, match=r"^body: must hold the name or settings of a body"):
        reference_settings(tree([2, 2]), {"body": body})


def test_a_reference_tree_of_a_single_path_has_a_fusion_of_its_width() -> None:
    assert reference_settings(paths(1, 12), {"branching": [2]})["fusion_features"] == 12


def test_a_reference_cannot_have_paths_and_a_tree() -> None:
    with pytest.raises(ConfigError, match=r"^paths: a network has either paths or a tree"):
        reference_settings(tree([2]), {"paths": 1, "branching": [2]})
