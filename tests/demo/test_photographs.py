from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from d2csr.demo.demo_pairs import FOLDER, PHOTOS, SPLITS, Photo, photos_of


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.name)
def test_every_photograph_opens_as_a_colour_image_of_useful_size(photo: Photo) -> None:
    with Image.open(photo.path) as image:
        assert image.mode == "RGB"
    pixels = photo.read()
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert 240 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= 640
    assert np.abs(pixels[..., 0].astype(int) - pixels[..., 2]).mean() > 5  # colour, not grey


def test_the_folder_holds_the_named_photographs_and_no_other() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {photo.path.name for photo in PHOTOS} | {"SOURCES.md"}


def test_the_photographs_are_small_enough_to_ship() -> None:
    assert sum(photo.path.stat().st_size for photo in PHOTOS) <= 3_000_000


def test_every_photograph_has_author_licence_and_origin_in_the_sources() -> None:
    rows = re.findall(r"^\| `(\w+)\.jpg` (\d+)×(\d+) \|(.*)\|$", (FOLDER / "SOURCES.md").read_text("utf-8"), re.M)
    assert [name for name, *_ in rows] == [photo.name for photo in PHOTOS]
    for photo, (_, width, height, rest) in zip(PHOTOS, rows, strict=True):
        split, _, author, licence, origin, _ = (cell.strip() for cell in rest.split("|"))
        assert photo.read().shape == (int(height), int(width), 3)
        assert split == photo.split
        assert author
        assert re.search(r"CC0|public domain|CC BY \d", licence)
        assert re.search(r"\d+\.\d+.*, `.+`", origin)


def test_no_photograph_is_in_two_splits() -> None:
    names = [photo.name for photo in PHOTOS]
    assert len(set(names)) == len(names)
    assert [len(photos_of(split)) for split in SPLITS] == [5, 1, 3]
    assert sum((photos_of(split) for split in SPLITS), ()) == PHOTOS


def test_no_two_photographs_are_equal() -> None:
    # Correlation of small grey versions: 1 for the same photograph in any encoding.
    small = [np.asarray(Image.fromarray(p.read()).convert("L").resize((32, 32)), float).ravel() for p in PHOTOS]
    correlation = np.corrcoef(small) - np.eye(len(PHOTOS))
    assert correlation.max() < 0.8
