from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from d2csr.evaluation.panels import Bar, Cell, draw_grid

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200))


def place(grid: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a colour."""
    found = (np.asarray(grid) == colour).all(axis=-1)
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def cells(width: int, height: int) -> list[list[Cell]]:
    made = [Cell(Image.new("RGB", (width, height), colour), "a name", "29.31 dB / 0.8912") for colour in COLOURS]
    return [made[:3], made[3:]]


@pytest.mark.parametrize(("width", "height"), [(300, 200), (150, 400), (800, 600)])
def test_cells_stand_in_rows_and_columns_with_captions_below(width: int, height: int) -> None:
    grid = draw_grid(cells(width, height))
    places = [place(grid, colour) for colour in COLOURS]
    assert all((right - left, bottom - top) == (width, height) for left, top, right, bottom in places)
    assert len({top for _, top, _, _ in places[:3]}) == 1
    assert len({left for left, _, _, _ in places[::3]}) == 1
    left, _, right, bottom = places[0]
    below = np.asarray(grid.convert("L"))[bottom : places[3][1]]
    assert below[:, left:right].min() < 60  # text
    assert below[:, :left].min() == 255  # it stays within its column
    assert below[:, right : places[1][0]].min() == 255


def test_captions_scale_with_the_images() -> None:
    heights = [draw_grid(cells(width, 100)).height - 2 * 100 for width in (256, 512, 1024)]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.05)
    assert heights[2] == pytest.approx(4 * heights[0], rel=0.05)


def test_small_images_are_centred() -> None:
    large, small = (
        Image.new("RGB", size, colour) for size, colour in zip(((200, 100), (20, 30)), COLOURS, strict=False)
    )
    grid = draw_grid([[Cell(large, "large"), Cell(small, "small")]])
    left, top, right, bottom = place(grid, COLOURS[0])
    pitch = right - left + left  # with the gap
    assert place(grid, COLOURS[1]) == (left + pitch + 90, top + 35, right + pitch - 90, bottom - 35)


def test_a_bar_stands_at_the_right_of_its_row() -> None:
    colours = Image.new("RGB", (1, 2), (255, 0, 0))
    colours.putpixel((0, 1), (0, 0, 255))
    grid = draw_grid(cells(200, 100), {1: Bar(colours, ("1", "0.5", "0"))})
    _, top, right, bottom = place(grid, COLOURS[5])
    high, low = place(grid, (255, 0, 0)), place(grid, (0, 0, 255))
    assert right < high[0] < grid.width
    assert (high[1], high[3], low[1], low[3]) == (top, top + 50, top + 50, bottom)
    ticks = np.asarray(grid.convert("L"))[:, high[2] :]
    assert ticks[: top - 4].min() == 255
    assert all(ticks[y - 8 : y + 8].min() < 60 for y in (top + 6, top + 50, bottom - 6))
