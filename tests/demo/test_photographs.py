from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from d2csr.demo.demo_pairs import FOLDER, PHOTOS, read_photo

NAMES = [name for names in PHOTOS.values() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_every_photograph_opens_as_a_colour_image_of_useful_size(name: str) -> None:
    with Image.open(FOLDER / f"{name}.jpg") as image:
        assert image.mode == "RGB"
    pixels = read_photo(name)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert 240 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 640
    assert np.abs(pixels[..., 0].astype(int) - pixels[..., 2]).mean() > 5  # colour, not grey


def test_the_folder_holds_the_named_photographs_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.jpg" for name in NAMES} | {"SOURCES.md"}


def test_the_photographs_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_000_000


def test_every_photograph_has_author_licence_and_origin_in_the_sources() -> None:
    rows = re.findall(r"^\| `(\w+)\.jpg` (\d+)×(\d+) \|(.*)\|$", (FOLDER / "SOURCES.md").read_text("utf-8"), re.M)
    assert [name for name, *_ in rows] == NAMES
    for name, width, height, rest in rows:
        split, _, author, licence, origin, _ = (cell.strip() for cell in rest.split("|"))
        assert read_photo(name).shape == (int(height), int(width), 3)
        assert name in PHOTOS[split]
        assert author
        assert re.search(r"CC0|public domain|CC BY \d", licence)
        assert re.search(r"\d+\.\d+.*, `.+`", origin)


def test_no_photograph_is_in_two_splits() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {split: len(names) for split, names in PHOTOS.items()} == {"train": 5, "val": 1, "test": 3}


def test_no_two_photographs_are_equal() -> None:
    # Correlation of small grey versions: 1 for the same photograph in any encoding.
    small = [
        np.asarray(Image.fromarray(read_photo(name)).convert("L").resize((32, 32)), float).ravel() for name in NAMES
    ]
    correlation = np.corrcoef(small) - np.eye(len(NAMES))
    assert correlation.max() < 0.8
