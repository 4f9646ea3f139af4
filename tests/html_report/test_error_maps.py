from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

from d2csr.colormap import css_gradient, inferno
from d2csr.html_report.pictures import error_image, squared_error


def test_an_error_has_the_colour_of_its_share_of_the_scale() -> None:
    error = torch.tensor([[0.0, 0.05, 0.1, 0.3]]) ** 2
    colours = 255 * np.array(matplotlib.colormaps["inferno"].colors)
    expected = np.rint(colours[[0, 128, 255, 255]])
    assert np.array_equal(np.asarray(error_image(error))[0], expected)


def test_the_error_is_that_of_the_clamped_image() -> None:
    hr = torch.zeros(1, 3, 1, 2)
    image = torch.tensor([[-0.5, 0.3], [0.0, 0.3], [0.0, 0.6]]).reshape(1, 3, 1, 2)
    assert squared_error(image, hr)[0].tolist() == pytest.approx([0, (0.09 + 0.09 + 0.36) / 3])


def test_the_colour_bar_begins_and_ends_as_the_colour_map() -> None:
    assert css_gradient(inferno(), 3) == "rgb(0 0 4), rgb(188 55 84), rgb(252 255 164)"
