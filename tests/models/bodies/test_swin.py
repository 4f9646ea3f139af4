from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from d2csr.errors import ConfigError
from d2csr.models.bodies.swin import SwinBody, WindowAttention, _reflected_indices

SMALL = {"groups": 2, "layers": 3, "heads": 3, "window": 4}


def pixel_shuffle_tail(features: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))


@pytest.mark.parametrize(("scale", "number"), [(2, 878), (3, 886), (4, 897)])
def test_swinir_light_has_the_published_number_of_parameters(scale, number, single_path, parameters):
    """878K, 886K and 897K: table 3 of the paper, which does not count the position biases.

    Counted with them, ×2 has 910.2K: https://github.com/JingyunLiang/SwinIR/issues/45.
    """
    network = single_path(60, SwinBody(60, groups=4, layers=6, heads=6), pixel_shuffle_tail(60, scale))
    biases = sum(p.numel() for name, p in network.named_parameters() if name.endswith("position_bias"))
    assert biases == 4 * 6 * 6 * 15**2
    assert round((parameters(network) - biases) / 1000) == number
    assert scale != 2 or parameters(network) == 910_152
    assert scale != 4 or parameters(network) == 929_628


@pytest.mark.parametrize("size", [(16, 16), (4, 12), (8, 4)])
def test_the_output_equals_that_of_another_implementation(size, single_path, randomised, copy_in_order):
    architectures = pytest.importorskip("spandrel.architectures.SwinIR")
    theirs = architectures.SwinIR(
        img_size=16,
        embed_dim=12,
        depths=[3, 3],
        num_heads=[3, 3],
        window_size=4,
        mlp_ratio=2,
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    theirs.mean = torch.zeros(1, 3, 1, 1)
    ours = single_path(12, SwinBody(12, **SMALL), pixel_shuffle_tail(12, 2))
    copy_in_order(randomised(theirs), ours)
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_shifted_windows_attend_to_their_own_side_of_the_border():
    """Computed pixel by pixel: each attends to the pixels of its own window, which the borders cut."""
    torch.manual_seed(0)
    window, shift, height, width = 4, 1, 8, 12
    attention = WindowAttention(6, heads=2, window=window, shift=shift).double()
    x = torch.randn(1, height, width, 6, dtype=torch.float64)
    with torch.no_grad():
        q, k, v = attention.qkv(x)[0].view(height, width, 3, 2, 3).unbind(2)
        expected = torch.zeros(height, width, 2, 3, dtype=torch.float64)
        for i in range(height):
            for j in range(width):
                rows = [r for r in range(height) if (r - shift) // window == (i - shift) // window]
                columns = [c for c in range(width) if (c - shift) // window == (j - shift) // window]
                scores = torch.stack(
                    [
                        (q[i, j] * k[r, c]).sum(-1) * 3**-0.5
                        + attention.position_bias[(i - r + window - 1) * (2 * window - 1) + j - c + window - 1]
                        for r in rows
                        for c in columns
                    ]
                )
                values = torch.stack([v[r, c] for r in rows for c in columns])
                expected[i, j] = (scores.softmax(0)[..., None] * values).sum(0)
        torch.testing.assert_close(attention(x)[0], attention.projection(expected.flatten(2)))


@pytest.mark.parametrize("size", [(5, 7), (9, 12), (16, 6)])
def test_other_sizes_are_padded_by_reflection(size, randomised):
    body = randomised(SwinBody(12, **SMALL))
    x = torch.randn(1, 12, *size)
    padding = [-size[1] % 4, -size[0] % 4]
    with torch.no_grad():
        whole = body(F.pad(x, (0, padding[0], 0, padding[1]), mode="reflect"))
        torch.testing.assert_close(body(x), whole[:, :, : size[0], : size[1]], rtol=1e-5, atol=1e-5)


def test_a_side_shorter_than_its_padding_is_reflected_repeatedly():
    assert _reflected_indices(1, 4, torch.device("cpu")).tolist() == [0, 0, 0, 0]
    assert _reflected_indices(2, 8, torch.device("cpu")).tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert _reflected_indices(3, 8, torch.device("cpu")).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert _reflected_indices(8, 4, torch.device("cpu")).tolist() == list(range(8))


@pytest.mark.parametrize(("groups", "layers", "overlap"), [(1, 2, 6), (2, 3, 18)])
def test_a_tile_on_the_window_grid_is_exact_away_from_its_borders(groups, layers, overlap, randomised):
    body = randomised(SwinBody(12, groups, layers, heads=3, window=4))
    x = torch.randn(1, 12, 96, 8)
    with torch.no_grad():
        whole = body(x)[:, :, 24 + overlap : 80 - overlap]
        on_the_grid = body(x[:, :, 24:80])[:, :, overlap:-overlap]
        off_the_grid = body(x[:, :, 23:79])[:, :, overlap + 1 : 57 - overlap]
    torch.testing.assert_close(on_the_grid, whole, rtol=1e-5, atol=1e-5)
    assert (off_the_grid - whole).abs().max() > 1e-2


def test_the_state_dict_does_not_depend_on_the_size_of_the_input():
    body = SwinBody(12, **SMALL)
    before = {name: value.shape for name, value in body.state_dict().items()}
    body(torch.randn(1, 12, 9, 20))
    assert {name: value.shape for name, value in body.state_dict().items()} == before
    assert set(before) == {name for name, _ in body.named_parameters()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 5}, "heads: must divide the number of features, 12, got 5"),
        ({"window": 1}, "window: must be a whole number from 2 to 32, got 1"),
        ({"window": 200}, "window: must be a whole number from 2 to 32, got 200"),
        ({"layers": 0}, "layers: must be a whole number from 1 to 1024, got 0"),
        ({"mlp_ratio": 0.01}, "mlp_ratio: must be a number at least 0.0833333 and at most 64, got 0.01"),
    ],
)
def test_an_impossible_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        SwinBody(12, **settings)
