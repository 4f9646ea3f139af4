from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

from d2csr.errors import ConfigError
from d2csr.inference.trace import strip_bytes, strip_halo, trunk_bytes, trunk_radius
from d2csr.models import D2CSR
from d2csr.models.bodies import BODIES, build_body, complete_settings

SMALL = {"name": "rcab", "groups": 1, "blocks": 1}


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_halo_is_three_rows_at_every_scale(scale) -> None:
    assert strip_halo(D2CSR(scale, 16, [2, 2], 64, SMALL)) == 3


@pytest.mark.parametrize("settings", [(2, 48, [1], 8), (4, 16, [3, 3], 64), (3, 16, [2, 2, 2], 5)])
def test_the_halo_does_not_depend_on_widths_and_tree(settings) -> None:
    assert strip_halo(D2CSR(*settings, SMALL)) == 3


def test_the_radius_of_the_trunk_is_the_one_of_its_gradient(random_model) -> None:
    model = random_model(2, (2, 2))
    radius = trunk_radius(model)
    assert radius == 1 + 2 * (2 * 5 + 1) + 2  # head; two bodies of two groups of two blocks; two skips
    for module in model.modules():  # an average of the whole image would reach everywhere
        if type(module).__name__ == "ChannelAttention":
            module.forward = lambda x: x
    lr = torch.rand(1, 3, 3, 2 * radius + 21, requires_grad=True)
    _, features = next(model.divergence.trunk(lr))
    features[..., radius + 10].square().sum().backward()
    touched = lr.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    assert (touched[0], touched[-1]) == (10, 2 * radius + 10)


@pytest.mark.parametrize(
    ("body", "radius"),
    [
        ("test_wide", 10),  # 5×5, 5×5 with dilation 3, 5×5
        ("test_unstated", 10),
        ("test_dense", 6),
        ("edsr", 19),
        ("rrdb", 16),
        ("rcab", 19),
        ("test_quadratic", math.inf),
        pytest.param("swin", math.inf, marks=pytest.mark.slow),
    ],
)
def test_the_radius_of_any_body(body, radius, awkward_bodies) -> None:
    assert trunk_radius(D2CSR(2, 16, [2, 2], 8, body)) == 1 + 2 * radius + 2
    assert trunk_radius(D2CSR(2, 16, [3], 8, body)) == 1 + radius + 1


@pytest.mark.parametrize("name", ["edsr", "rrdb", "test_wide", "test_dense"])
def test_a_stated_receptive_field_is_the_spread_of_a_nan(name, awkward_bodies) -> None:
    body = build_body(16, complete_settings({"name": name})).double()
    side = body.receptive_field
    x = torch.zeros(1, 16, side + 4, side + 4, dtype=torch.float64)
    x[0, 0, side // 2 + 2, side // 2 + 2] = torch.nan
    with torch.no_grad():
        spoiled = body(x).isnan().any(dim=1)[0]
    for axis in (0, 1):
        assert spoiled.any(dim=axis).nonzero().flatten().tolist() == list(range(2, side + 2))


def test_the_radius_of_strided_convolutions_counts_input_pixels(awkward_bodies) -> None:
    body = build_body(16, complete_settings({"name": "test_u_net"})).double()
    x = torch.zeros(1, 16, 61, 61, dtype=torch.float64)
    actual = 0
    for middle in range(28, 32):  # the spread depends on the position in the grid of the stride
        spoiled = x.clone()
        spoiled[..., middle, :] = torch.nan
        with torch.no_grad():
            rows = body(spoiled).isnan().flatten(1).any(dim=0).view(16, 61, 61).any(dim=(0, 2)).nonzero()
        actual = max(actual, (rows - middle).abs().max().item())
    assert actual == 8
    assert actual <= trunk_radius(D2CSR(2, 16, [1], 8, "test_u_net")) - 2 <= 1.5 * actual


def test_every_local_body_states_its_receptive_field() -> None:
    stated = {name for name in BODIES if build_body(16, complete_settings({"name": name})).receptive_field}
    assert stated == {"edsr", "rrdb"}  # the others average over the image or use windows


def test_the_trunk_bytes_count_its_maps(awkward_bodies) -> None:
    """Counted by hand for two leaves below the root."""
    value, image = 16 * 30 * 50 * 4, 3 * 30 * 50 * 4
    # Leaf 1; in the last layer of the last body its 6 inputs, which include the head's output; their copy; the output.
    dense = trunk_bytes(D2CSR(2, 16, [2], 8, "test_dense"), 30, 50)
    assert dense == (1 + 6 + 6 + 1) * value + image
    assert trunk_bytes(D2CSR(2, 16, [2], 8, "test_dense"), 30, 50, 2) * 2 == dense
    assert trunk_bytes(D2CSR(2, 16, [2], 8, "test_dense"), 30, 50, offload=True) == dense - value


def test_memory_of_attention_grows_with_the_square(awkward_bodies) -> None:
    model = D2CSR(2, 16, [2, 2], 8, "test_quadratic")
    pixels = 100 * 100
    needed = trunk_bytes(model, 100, 100)
    assert 2 * pixels**2 * 4 < needed < 3.1 * pixels**2 * 4  # scores, and their softmax
    assert trunk_bytes(model, 200, 200) > 15 * needed


def test_the_memory_of_a_body_that_reads_its_values_is_unknown(awkward_bodies) -> None:
    model = D2CSR(2, 16, [2], 8, "test_no_meta")
    with pytest.raises(ConfigError, match=r"body: 'test_no_meta' cannot run on the meta device.*mode=strips"):
        trunk_bytes(model, 20, 20)


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("test_strided", r"\(1, 16, 4, 6\)"),
        ("test_unpadded", r"\(1, 16, 3, 5\)"),
        ("test_wrong_channels", r"\(1, 32, 5, 7\)"),
        ("test_failing", "an error"),
    ],
)
def test_a_body_that_changes_the_shape_is_refused(body, result, awkward_bodies) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"body: '{body}' must keep .*\(1, 16, 5, 7\) gave {result}.*Pad"):
            D2CSR(2, 16, [2, 2], 8, body)
    with torch.device("meta"), pytest.raises(ConfigError, match=f"body: '{body}' must keep"):
        D2CSR(2, 16, [2, 2], 8, body)


def test_the_check_of_a_body_changes_no_state() -> None:
    torch.manual_seed(0)
    model = D2CSR(2, 24, [2, 2], 8, SMALL)
    after = torch.rand(1)
    torch.manual_seed(0)
    again = D2CSR(2, 24, [2, 2], 8, SMALL)  # checked before
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert all(module.training for module in model.modules())
    assert not any(isinstance(module, nn.Identity) for module in model.modules())


def test_traces_are_cached(random_model) -> None:
    model = random_model(2)
    expected = trunk_bytes(model, 1000, 1000)
    start = time.process_time()
    for _ in range(100):
        assert trunk_bytes(model, 1000, 1000) == expected
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("body", ["rcab", pytest.param("swin", marks=pytest.mark.slow)])
def test_traces_are_the_same_in_inference_mode(body) -> None:
    """There PyTorch hands composite operations to a trace as a whole."""

    def traces(fusion_features: int) -> tuple[float, ...]:
        model = D2CSR(2, 16, [2, 2], fusion_features, body)
        return trunk_bytes(model, 40, 30), strip_bytes(model), strip_halo(model), trunk_radius(model)

    with torch.inference_mode():
        inside = traces(3)
    outside = traces(4)  # a different width of the fusion, so that nothing is cached
    assert inside == outside
