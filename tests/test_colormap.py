from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from d2csr.colormap import VIRIDIS, colour_weights

COLOURS = np.frombuffer(VIRIDIS, np.uint8).reshape(256, 3)


def test_the_lightness_rises_evenly() -> None:
    lightness = rgb2lab(COLOURS[None] / 255)[0, :, 0]
    even = np.linspace(lightness[0], lightness[-1], 256)
    assert lightness[0] < 20
    assert lightness[-1] > 90
    assert np.abs(lightness - even).max() < 2


def test_the_colours_are_those_of_matplotlib() -> None:
    assert COLOURS[[0, 64, 128, 192, 255]].tolist() == [
        [68, 1, 84],
        [59, 82, 139],
        [33, 145, 140],
        [94, 201, 98],
        [253, 231, 37],
    ]
    matplotlib = pytest.importorskip("matplotlib")
    assert np.array_equal(COLOURS, np.rint(np.array(matplotlib.colormaps["viridis"].colors) * 255))


def test_weights_keep_their_values_and_are_shown_in_colour() -> None:
    weights = np.array([[-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 0.5, 1.0, 1.1]])
    image = colour_weights(weights)
    assert np.asarray(image).tolist() == [[0, 0, 0, 1, 128, 255, 255]]
    assert np.array_equal(np.asarray(image.convert("RGB")), COLOURS[np.asarray(image)])
