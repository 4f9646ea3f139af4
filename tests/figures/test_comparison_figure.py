from __future__ import annotations

import re
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from d2csr.commands.base import config_dir
from d2csr.errors import ConfigError
from d2csr.evaluation.panels import to_image
from d2csr.figures import Style, figure_content, named_crops, write_figure
from d2csr.figures.figure_layout import layout
from d2csr.metrics import psnr, ssim, to_8bit
from image_results import make_result

CROPS = named_crops({"one": [8, 16, 48, 40], "two $x$": [64, 32, 48, 40]})
SCORED = {"scores": "crop", "protocol": "d2csr", "eight_bit": False}


def style(**settings) -> Style:
    """Return the shipped form of a figure, with these settings."""
    shipped = OmegaConf.load(Path(config_dir()) / "figure.yaml")
    return Style(**{**{field.name: shipped[field.name] for field in fields(Style)}, **settings})


@pytest.mark.parametrize("width", [84, 174, 100.5])
def test_the_files_have_the_exact_width(width: float, tmp_path: Path) -> None:
    content = figure_content(make_result(0), CROPS, **SCORED)
    paths = [tmp_path / "figure.pdf", tmp_path / "figure.png"]
    found = write_figure(content, style(width_mm=width, dpi=200), paths)
    pdf = paths[0].read_bytes()
    box = re.search(rb"/MediaBox \[ ?([\d. ]+?) ?\]", pdf)
    assert box
    left, bottom, right, top = map(float, box[1].split())
    assert (right - left) * 25.4 / 72 == pytest.approx(width, abs=1e-3)
    assert (top - bottom) * 25.4 / 72 == pytest.approx(found[1], abs=1e-3)
    with Image.open(paths[1]) as image:
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.01)
        assert abs(image.width - width / 25.4 * 200) <= 1
        assert abs(image.height - found[1] / 25.4 * 200) <= 1


def test_fonts_are_embedded_as_truetype_and_crops_keep_their_pixels(tmp_path: Path) -> None:
    result = make_result(0)
    content = figure_content(result, CROPS, methods=["fusion", "HR"], **SCORED)
    write_figure(content, style(), [tmp_path / "figure.pdf"])
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    images = re.findall(rb"/Width (\d+)|/Height (\d+)", pdf)
    assert [int(width or height) for width, height in images].count(48) == 4
    streams = [part for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL) if part[:1] == b"x"]
    assert len([zlib.decompress(part) for part in streams]) >= 4


def test_the_crops_and_their_scores_are_those_of_the_methods() -> None:
    result = make_result(0)
    content = figure_content(result, CROPS, labels={"fusion": "ours"}, **SCORED)
    assert [cell.label for cell in content.rows[0]] == ["LR", "bicubic", "ours", "HR"]
    part = (..., slice(32, 72), slice(64, 112))
    fusion, hr = result.images["fusion"][part], result.hr[part]
    cell = content.rows[1][2]
    assert np.array_equal(cell.image, np.asarray(to_image(fusion)))
    assert cell.scores == {"psnr": psnr(fusion, hr, scale=2).item(), "ssim": ssim(fusion, hr, scale=2).item()}
    assert content.rows[1][0].scores is content.rows[1][3].scores is None
    assert content.note == "PSNR (dB) / SSIM of each crop, protocol d2csr (float, PSNR clamped, SSIM not clamped)"
    lr = np.asarray(to_image(result.lr)).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(content.rows[1][0].image, lr[32:72, 64:112])


def test_scores_are_of_8_bit_images_of_the_whole_image_or_absent_on_request() -> None:
    result = make_result(0)
    part = (..., slice(16, 56), slice(8, 56))
    rounded = psnr(to_8bit(result.images["fusion"][part]), result.hr[part], scale=2).item()
    eight = figure_content(result, CROPS, methods=["fusion"], **{**SCORED, "eight_bit": True})
    assert eight.rows[0][0].scores["psnr"] == rounded
    whole = figure_content(result, CROPS, methods=["fusion"], **{**SCORED, "scores": "image"})
    assert whole.rows[0][0].scores == result.scores["fusion"]
    assert "of the whole image, protocol d2csr" in whole.note
    none = figure_content(result, CROPS, methods=["fusion"], **{**SCORED, "scores": "none"})
    assert (none.rows[0][0].scores, none.note) == (None, "")


def test_the_figure_shows_the_boxes_and_the_crops(tmp_path: Path) -> None:
    result = make_result(0)
    content = figure_content(result, named_crops([8, 16, 48, 40]), methods=["LR", "HR"], **SCORED)
    write_figure(content, style(width_mm=100, dpi=254), [tmp_path / "figure.png"])  # 10 pixels a millimetre
    with Image.open(tmp_path / "figure.png") as image:
        shown = np.asarray(image.convert("RGB"), dtype=int)
    red = np.abs(shown - [0xD7, 0x19, 0x1C]).sum(axis=2) < 12
    assert red.sum() > 1000
    columns = np.flatnonzero(red.any(axis=0))
    assert columns[-1] > 990  # the frame of HR, at the right edge
    box = layout(style(width_mm=100), [(48, 40)], 2, (128, 96), with_scores=True).cells[0][1]
    left, top, width, height = (round(10 * value) for value in box)
    hr = Image.fromarray(np.asarray(to_image(result.hr))[16:56, 8:56])
    expected = np.asarray(hr.resize((width, height), Image.Resampling.NEAREST), dtype=int)
    inner = slice(10, -10)  # without the frame
    found = shown[top : top + height, left : left + width]
    assert np.abs(found[inner, inner] - expected[inner, inner]).mean() < 4


def test_the_note_about_the_scores_is_not_cut_at_a_narrow_width(tmp_path: Path) -> None:
    content = figure_content(make_result(0), named_crops([8, 16, 48, 40]), methods=["LR", "HR"], **SCORED)
    write_figure(content, style(width_mm=84, dpi=300), [tmp_path / "figure.png"])
    with Image.open(tmp_path / "figure.png") as image:
        note = np.asarray(image.convert("L"))[-25:] < 128
    assert note.any()
    assert not note[:, -3:].any()


@pytest.mark.parametrize(
    ("crops", "settings", "message"),
    [
        ([100, 0, 48, 40], {}, "exceeds the image of 128×96"),
        ([0, 0, 31, 40], {}, "scores need 32×32 pixels"),
        ([0, 0, 48, 40], {"methods": ["fusoin"]}, "no method is called fusoin; the names are LR, bicubic, leaf 11"),
        ([0, 0, 48, 40], {"labels": {"SwinIR": "x"}}, "no method is called SwinIR"),
    ],
)
def test_impossible_contents_are_named(crops, settings, message) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        figure_content(make_result(0), named_crops(crops), **{**SCORED, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width_mm": 5}, "width_mm: must be a number at least 20 and below 2001, got 5"),
        ({"dpi": 10}, "dpi: must be a whole number from 50 to 2400, got 10"),
        ({"font_pt": 0}, "font_pt: must be a number"),
        ({"columns": 0}, "columns: must be a whole number from 1 up"),
        ({"overview": "right"}, "overview: must be one of left, top, none, got 'right'"),
    ],
)
def test_impossible_styles_are_named(settings, message) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        style(**settings)
