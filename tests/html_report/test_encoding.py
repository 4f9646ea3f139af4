from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2csr.html_report.encoding import ENCODINGS, REPORT_BYTES, PictureFolder, candidates

LOSSLESS, GOOD, FAIR, SMALL, SMALLEST = ENCODINGS


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_few_images_are_lossless_and_many_are_not() -> None:
    first = [next(candidates(1200 * 900, 18, REPORT_BYTES / images)) for images in (3, 30, 80, 130, 1000)]
    assert first == [LOSSLESS, GOOD, FAIR, SMALL, SMALLEST]
    assert list(candidates(1200 * 900, 18, REPORT_BYTES / 80)) == [FAIR, SMALL, SMALLEST]


def test_results_keep_their_pixels_where_the_size_allows_it(tmp_path: Path) -> None:
    image = noise(70, 50)
    for folder, write in ((LOSSLESS, PictureFolder.comparison), (SMALLEST, PictureFolder.exact)):
        picture = write(PictureFolder(tmp_path, folder), "a", image)
        assert (picture.full, picture.width, picture.height) == (None, 70, 50)
        with Image.open(tmp_path / picture.shown) as written:
            assert np.array_equal(np.asarray(written), np.asarray(image))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda one: one.name)
def test_a_large_picture_is_reduced_and_has_its_full_size_beside_it(encoding, tmp_path: Path) -> None:
    files = PictureFolder(tmp_path, encoding)
    for write, side, has_full in (
        (files.comparison, encoding.shown, encoding.full),
        (files.detail, encoding.shown_details, encoding.full_details),
    ):
        picture = write("a", noise(2000, 50))
        assert (picture.width, picture.height, picture.full is not None) == (2000, 50, has_full)
        with Image.open(tmp_path / picture.shown) as shown:
            assert shown.size == (side, round(50 * side / 2000))
        if picture.full:
            with Image.open(tmp_path / picture.full) as full:
                assert full.size == (2000, 50)


def test_a_picture_beyond_the_limit_of_webp_is_a_png(tmp_path: Path) -> None:
    picture = PictureFolder(tmp_path, LOSSLESS).comparison("a", noise(16_400, 2))
    assert picture.full == "a.png"
    with Image.open(tmp_path / "a.png") as full:
        assert full.size == (16_400, 2)
