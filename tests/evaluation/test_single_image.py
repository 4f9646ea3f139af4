from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError
from d2csr.evaluation.single_image import find_image

PAIRS = [
    ImagePair(Path(f"{folder}/{name}_LR4.png"), Path(f"{folder}/{name}_HR.png"), "list")
    for folder, name in (("a", "china"), ("a", "flower"), ("b", "china"))
]


@pytest.mark.parametrize("name", ["flower_LR4", "flower_LR4.png", "flower_HR", "flower_HR.png"])
def test_an_image_has_the_names_of_its_files(name: str) -> None:
    assert find_image(PAIRS, name) == 1


def test_images_of_one_name_are_told_apart_by_their_numbers() -> None:
    assert find_image(PAIRS, "0002_china_LR4") == 2
    with pytest.raises(
        ConfigError, match="china_HR is the name of 2 images; choose one of 0000_china_LR4, 0002_china_LR4"
    ):
        find_image(PAIRS, "china_HR")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"no test image is called flowr_LR4\. Did you mean flower_LR4\?"):
        find_image(PAIRS, "flowr_LR4")
    with pytest.raises(ConfigError, match="The names are 0000_china_LR4, flower_LR4, 0002_china_LR4"):
        find_image(PAIRS, "x")
