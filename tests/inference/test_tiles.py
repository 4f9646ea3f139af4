from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import torch

import d2csr
from d2csr.inference import Inference
from d2csr.inference.strips import zero_outputs
from d2csr.inference.tiles import add_tiles, probe, spans
from d2csr.inference.trace import trunk_radius


@pytest.mark.parametrize("radius", [2, 10, 44])
@pytest.mark.parametrize("side", [2, 3, 7, 16, 50, 128])
def test_tiles_cover_the_image_and_no_row_is_in_more_than_two(side, radius) -> None:
    for extent in (*range(1, 60), 97, 256, 1000):
        covered = [0] * extent
        places = spans(extent, side, radius)
        for start, stop in places:
            assert 0 <= start < stop <= extent
            assert stop - start <= side
            for point in range(start, stop):
                covered[point] += 1
        assert set(covered) <= {1, 2}
        assert 0 not in covered


def test_neighbouring_tiles_overlap_by_twice_the_radius_and_have_similar_sizes() -> None:
    places = spans(1000, 300, 20)
    assert [stop - start for start, stop in places[:-1]] == [280] * 3
    assert places[-1][1] - places[-1][0] == 280
    assert all(before[1] - after[0] == 40 for before, after in pairwise(places))


@pytest.mark.parametrize("size", [(31, 18), (12, 40), (50, 50)])
def test_the_weights_of_all_tiles_add_up_to_one(size, random_model) -> None:
    """Where every tile gives the same, so does their blend: the weight maps sum to 1 over the leaves in each."""
    model = random_model(2)
    lr = torch.rand(1, 3, *size)
    totals = zero_outputs(model, lr, keep_leaves=True)
    add_tiles(totals, model, lr, 11, 4)
    torch.testing.assert_close(totals[2].sum(dim=1), torch.ones(1, 2 * size[0], 2 * size[1]))


def test_without_channel_attention_the_blend_is_nearly_exact(random_model, plain, difference) -> None:
    """What is left then are the borders of tiles, which the overlap keeps where a tile's weight is low."""
    model = random_model(2, (2,), features=16)
    for module in model.modules():
        if type(module).__name__ == "ChannelAttention":
            module.forward = lambda x: x * 0.2
    lr = torch.rand(1, 3, 20, 150)
    exact, *_ = plain(model, lr)
    blended = Inference(mode="tiles", tile=4 * trunk_radius(model))(model, lr)
    assert blended.shape == exact.shape
    assert difference(blended, exact) < 1e-3


@pytest.mark.slow
def test_tiles_come_close_and_larger_ones_closer(random_model, plain, difference) -> None:
    model = random_model(4)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 60), torch.linspace(0, 1, 72), indexing="ij")
    lr = torch.stack([rows, columns, (rows * 9).sin() / 2 + 0.5])[None]
    exact, *_ = plain(model, lr)
    errors = [(Inference(mode="tiles", tile=side)(model, lr) - exact).abs().mean().item() for side in (12, 40, 72)]
    assert errors == sorted(errors, reverse=True)
    assert 1e-6 < errors[1] < 0.05
    assert errors[2] < 1e-6  # one tile holds all


@pytest.mark.parametrize("self_ensemble", [False, True])
def test_tiles_are_reported_once_as_approximate_with_a_measured_difference(
    random_model, caplog, self_ensemble: bool
) -> None:
    model = random_model(2)
    lr = torch.rand(1, 3, 30, 40)
    with caplog.at_level(logging.WARNING):
        Inference(mode="tiles", tile=16, self_ensemble=self_ensemble)(model, lr)
    (record,) = caplog.records
    measured, square = probe(model, lr, 16, 16)
    assert square == 16
    assert measured > 1e-4
    assert "approximate: an image of 40×30 is computed in tiles of 16 pixels" in record.message
    assert f"{measured:.1e}" in record.message


@pytest.mark.slow
def test_a_trunk_that_does_not_fit_falls_back_to_tiles(random_model, caplog) -> None:
    model = random_model(2)
    lr = torch.rand(1, 3, 200, 220)
    for memory, warnings in (("1GB", 0), ("140MB", 1)):
        caplog.clear()
        sr = Inference(memory=memory)(model, lr)
        assert sr.shape == (1, 3, 400, 440)
        assert len(caplog.records) == warnings
    caplog.clear()
    Inference(memory="140MB", mode="strips")(model, lr)
    assert not caplog.records


def test_the_probe_measures_no_error_for_a_model_of_zeros(random_model) -> None:
    model = random_model(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert probe(model, torch.rand(1, 3, 30, 30), 20, 8) == (0, 20)


def test_upscale_in_tiles(random_model) -> None:
    image = torch.rand(3, 20, 33)
    assert d2csr.upscale(random_model(3), image, mode="tiles", tile=12).shape == (3, 60, 99)
