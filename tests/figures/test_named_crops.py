from __future__ import annotations

import pytest

from d2csr.errors import ConfigError
from d2csr.figures import NamedCrop, named_crops


def test_crops_are_a_mapping_a_list_or_one_rectangle() -> None:
    assert named_crops({"badge": [1, 2, 40, 30]}) == [NamedCrop("badge", 1, 2, 40, 30)]
    assert named_crops([1, 2, 40, 30]) == named_crops([[1, 2, 40, 30]]) == [NamedCrop("", 1, 2, 40, 30)]
    assert [crop.name for crop in named_crops([[1, 2, 40, 30], [5, 6, 40, 30]])] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "must be {name: "),
        ({}, "must be {name: "),
        ([], "must be {name: "),
        ("1,2,3,4", "must be {name: "),
        ({"badge": [1, 2, 3]}, "crops: badge: must be [x,y,width,height] in HR pixels, got [1, 2, 3]"),
        ({"badge": 7}, "crops: badge: must be [x,y,width,height]"),
        ({"badge": [-1, 2, 40, 30]}, "crops: badge: x: must be a whole number from 0 up, got -1"),
        ([[1, 2, 40, 0]], "height: must be a whole number from 1 up, got 0"),
        ([[1, 2, 40.5, 30]], "width: must be a whole number from 1 up, got 40.5"),
    ],
)
def test_impossible_crops_are_named(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        named_crops(value)
    assert message in str(error.value)


def test_a_crop_is_inside_of_its_image() -> None:
    NamedCrop("badge", 60, 10, 40, 30).require_inside(100, 40)
    with pytest.raises(ConfigError, match=r"badge, 40×30 at 61,10, exceeds the image of 100×40"):
        NamedCrop("badge", 61, 10, 40, 30).require_inside(100, 40)
