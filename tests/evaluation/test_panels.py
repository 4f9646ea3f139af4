"""Panels: the place and the content of each cell, against arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError
from d2csr.evaluation import panels
from d2csr.evaluation.panels import Part, difference_image, panel, panel_name, to_image
from d2csr.evaluation.report import ImageResult

SCALE = 2
METHODS = ("bicubic", "mean", "fusion")


def result(height: int = 60, width: int = 80, leaves: int = 4, methods: tuple[str, ...] = METHODS) -> ImageResult:
    """Noise, with weights that sum to 1."""
    random = torch.Generator().manual_seed(0)
    names = [methods[0], *(f"leaf {number}" for number in range(leaves)), *methods[1:]]
    images = {name: torch.rand(1, 3, height, width, generator=random) for name in names}
    lr = torch.rand(1, 3, height // SCALE, width // SCALE, generator=random)
    hr = torch.rand(1, 3, height, width, generator=random)
    weights = torch.rand(1, leaves, height, width, generator=random).softmax(dim=1) if leaves else None
    return ImageResult(0, lr, hr, images, weights, {name: {"psnr": 30.0, "ssim": 0.9} for name in names})


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that returns the rows of cells of a panel; the cells of the first two columns by name."""
    grids = []
    monkeypatch.setattr(panels, "draw_grid", lambda rows, bars=None: grids.append(rows))

    def draw(*arguments):
        panel(*arguments)
        return grids.pop()

    return draw


def pixels(image: torch.Tensor, zoom: int) -> np.ndarray:
    """Return 1×3×H×W as it is shown."""
    values = np.rint(image[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return values.repeat(zoom, axis=0).repeat(zoom, axis=1)


def test_every_image_of_a_whole_panel_has_its_cell(drawn) -> None:
    shown = result()
    rows = drawn(shown, Part(), "y")
    assert [[cell.name for cell in row] for row in rows] == [
        ["LR", "fusion", "leaf 0", "leaf 1", "leaf 2", "leaf 3"],
        ["bicubic", "HR", "weight 0", "weight 1", "weight 2", "weight 3"],
        ["mean", "fusion - HR, x8", "0 - mean, x8", "1 - mean, x8", "2 - mean, x8", "3 - mean, x8"],
    ]
    zoom = 3  # 256 // 80
    expected = {(0, 0): (shown.lr, zoom * SCALE), (1, 1): (shown.hr, zoom), (0, 3): (shown.images["leaf 1"], zoom)}
    for (row, column), (image, factor) in expected.items():
        assert np.array_equal(np.asarray(rows[row][column].image), pixels(image, factor)), (row, column)
    difference = 0.5 + 8 * (shown.images["leaf 2"] - shown.images["mean"])
    assert np.array_equal(np.asarray(rows[2][4].image), pixels(difference, zoom))
    assert rows[0][1].note == "30.00 dB / 0.9000"  # the scores of the result
    assert rows[1][1].note == "PSNR / SSIM (y)"


def test_a_part_is_shown_with_its_place_and_its_own_scores(drawn) -> None:
    shown = result(200, 240)
    rows = drawn(shown, Part(crop=64, at=[101, 40]), "y")
    assert [row[0].name for row in rows] == ["HR 240x200", "LR", "bicubic"]
    assert rows[0][0].note == "64x64 at 100,40"  # a whole LR pixel
    part = (..., slice(40, 104), slice(100, 164))
    fusion = shown.images["fusion"][part]
    assert np.array_equal(np.asarray(rows[1][1].image), pixels(fusion, 4))
    assert np.array_equal(np.asarray(rows[1][0].image), pixels(shown.lr[..., 20:52, 50:82], 8))
    luma = [
        16 + (np.rint(image[0].permute(1, 2, 0).numpy() * 255) / 255 @ (65.481, 128.553, 24.966))[2:-2, 2:-2]
        for image in (fusion, shown.hr[part])
    ]
    psnr = peak_signal_noise_ratio(*luma, data_range=255)
    assert rows[1][1].note.startswith(f"{psnr:.2f} dB / ")
    overview = np.asarray(rows[0][0].image.convert("RGB")).astype(int)
    red = (overview == panels._BOX).all(axis=-1)
    rows_of_box, columns_of_box = (np.flatnonzero(red.any(axis=axis)) for axis in (1, 0))
    factor, line = 256 / 240, 2
    assert overview.shape[:2] == (213, 256)
    assert [rows_of_box[0], rows_of_box[-1]] == pytest.approx([40 * factor - line, 104 * factor + line], abs=1)
    assert [columns_of_box[0], columns_of_box[-1]] == pytest.approx([100 * factor - line, 164 * factor + line], abs=1)


@pytest.mark.parametrize(
    ("part", "lr_size", "scale", "box"),
    [
        (Part(), (50, 60), 4, (0, 0, 60, 50)),
        (Part(64), (50, 60), 4, (22, 17, 38, 33)),
        (Part(64, (0, 0)), (50, 60), 4, (0, 0, 16, 16)),
        (Part(64, (43, 8)), (50, 60), 4, (10, 2, 26, 18)),
        (Part(64, (9999, 180)), (50, 60), 4, (44, 34, 60, 50)),  # moved inside
        (Part(64, (9999, 180)), (10, 60), 4, (44, 0, 60, 10)),
        (Part(64), (45, 39), 3, (9, 12, 30, 33)),
    ],
)
def test_the_box_of_a_part(part, lr_size, scale, box) -> None:
    assert part.box(lr_size, scale) == box


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 31}, "crop: must be a whole number from 32 up, got 31"),
        ({"crop": 64, "zoom": 0}, "zoom: must be a whole number from 1 to 32"),
        ({"at": [1, 2]}, "at: needs crop too"),
        ({"crop": 64, "at": [1]}, r"at: must be \[x,y\] in HR pixels, got \[1\]"),
        ({"crop": 64, "at": "12"}, r"at: must be \[x,y\]"),
        ({"crop": 64, "at": [1, -1]}, "at: must be a whole number from 0 up, got -1"),
    ],
)
def test_impossible_settings_are_named(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Part(**settings)


@pytest.mark.parametrize("leaves", [0, 2, 4, 9])
@pytest.mark.parametrize("part", [Part(), Part(32, zoom=5)])
@pytest.mark.parametrize("methods", [METHODS, (*METHODS[:2], "other", "fusion"), (*METHODS[:2], "a", "b", "fusion")])
def test_no_cell_is_blank(leaves, part, methods, drawn) -> None:
    rows = drawn(result(48, 40, leaves, methods), part, "d2csr")
    assert len(rows) == (3 if leaves else 1)
    assert len({len(row) for row in rows}) == 1
    names = [cell.name for row in rows for cell in row]
    assert len(set(names)) == len(names)
    assert set(methods) <= set(names)


def test_weights_are_viridis_from_0_to_1_for_any_values(drawn) -> None:
    shown = result()
    shown.weights[:] = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(1, 4, 1, 1)
    cells = drawn(shown, Part(), "d2csr")[1][2:]
    colours = [cell.image.getpixel((0, 0)) for cell in cells]
    assert colours == [(68, 1, 84), (59, 82, 139), (92, 200, 99), (253, 231, 37)]  # of matplotlib
    assert [cell.note for cell in cells[1:3]] == ["0.25 to 0.25, mean 0.25", "0.75 to 0.75, mean 0.75"]


def test_large_images_are_reduced(drawn) -> None:
    shown = result(64, 4100, leaves=0)
    [row] = drawn(shown, Part(), "d2csr")
    assert {cell.image.size for cell in row} == {(1367, 22)}  # a third
    assert row[-1].image.getpixel((0, 0)) == pytest.approx(np.rint(pixels(shown.hr, 1)[:3, :3].mean((0, 1))), abs=1)


def test_a_difference_of_zero_is_grey() -> None:
    steps = torch.tensor([-1, -1 / 16, 0, 1 / 16, 1]).expand(1, 3, 1, 5)
    assert np.asarray(difference_image(steps))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_an_image_is_clamped_and_rounded() -> None:
    image = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.5]).expand(1, 3, 1, 6).clone()
    before = image.clone()
    assert np.asarray(to_image(image))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
    assert torch.equal(image, before)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert to_image(red).getpixel((0, 0)) == (255, 0, 0)


def test_images_are_named_by_their_lr_and_numbered_where_names_repeat() -> None:
    pairs = [ImagePair(Path(folder) / "x.png", Path("hr.png")) for folder in ("a", "b")]
    pairs.append(ImagePair(Path("a/y.png"), Path("hr.png")))
    assert [panel_name(pairs, index) for index in range(3)] == ["0000_x", "0001_x", "y"]
