from __future__ import annotations

import itertools

import pytest

from d2csr.errors import ConfigError
from d2csr.figures.figure_layout import Style, layout

FORM = {"dpi": 300, "font_pt": 7, "columns": None, "overview": "left"}
CASES = [
    ([(64, 64)], 6, (640, 480), {}),
    ([(64, 64), (96, 64)], 5, (640, 480), {}),
    ([(64, 48)], 4, (300, 500), {"overview": "top", "columns": 3}),
    ([(64, 64)] * 3, 4, (640, 480), {"overview": "none"}),
]


@pytest.mark.parametrize(("crops", "methods", "image", "settings"), CASES)
@pytest.mark.parametrize("width", [84.0, 174.0])
def test_the_parts_fill_the_width_without_overlap_and_keep_their_forms(crops, methods, image, settings, width) -> None:
    found = layout(Style(width, **{**FORM, **settings}), crops, methods, image, with_scores=True)
    boxes = [box for row in found.cells for box in row]
    assert len(boxes) == len(crops) * methods
    parts = boxes + [found.overview] * (found.overview is not None)
    assert min(box.left for box in parts) == pytest.approx(0.2)
    assert max(box.left + box.width for box in parts) == pytest.approx(width - 0.2)
    assert max(box.top + box.height for box in parts) < found.note < found.height
    for one, other in itertools.combinations(parts, 2):
        apart = max(one.left, other.left) - min(one.left + one.width, other.left + other.width)
        assert apart > 0.5 or max(one.top, other.top) - min(one.top + one.height, other.top + other.height) > 0.5
    for row, (crop_width, crop_height) in zip(found.cells, crops, strict=True):
        assert all(box.width / box.height == pytest.approx(crop_width / crop_height) for box in row)
    if found.overview:
        assert found.overview.width / found.overview.height == pytest.approx(image[0] / image[1])


def test_too_many_crops_for_a_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"width_mm: 40 mm leave .* mm for a crop"):
        layout(Style(40, **FORM), [(64, 64)] * 4, 8, (640, 480), with_scores=True)
