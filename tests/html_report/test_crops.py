from __future__ import annotations

import itertools

import pytest
import torch

from d2csr.html_report.crops import Crop, choose_crops, compared


def test_the_crops_are_where_the_errors_of_the_methods_differ_most() -> None:
    errors = {"a": torch.full((300, 400), 0.01), "b": torch.full((300, 400), 0.01)}
    errors["a"][128:192, 64:128] += 0.05
    errors["b"][0:64, 320:384] += 0.09
    errors["a"][200:264, 200:264] += 1.0  # an error that both have
    errors["b"][200:264, 200:264] += 1.0
    crops = choose_crops(errors, 4)
    assert crops[:2] == [Crop(320, 0, 64), Crop(64, 128, 64)]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(32, 48), (216, 144), (912, 1200)])
def test_crops_are_inside_of_the_image_at_whole_lr_pixels_and_do_not_overlap(scale: int, size: tuple[int, int]) -> None:
    height, width = (side // scale * scale for side in size)
    generator = torch.Generator().manual_seed(0)
    errors = {name: torch.rand(height, width, generator=generator) for name in "ab"}
    crops = choose_crops(errors, scale)
    assert crops
    for crop in crops:
        assert {value % scale for value in (crop.left, crop.top, crop.side)} == {0}
        assert crop.left + crop.side <= width
        assert crop.top + crop.side <= height
    for one, other in itertools.combinations(crops, 2):
        assert max(abs(one.left - other.left), abs(one.top - other.top)) >= one.side


def test_without_a_difference_there_are_no_crops() -> None:
    assert choose_crops({"a": torch.zeros(96, 96)}, 2) == []


def test_bicubic_takes_part_beside_a_single_method() -> None:
    assert compared(["bicubic", "fusion"]) == ["bicubic", "fusion"]
    assert compared(["bicubic", "SwinIR", "fusion"]) == ["SwinIR", "fusion"]
