from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from d2csr.colormap import colour_weights, css_gradient, inferno
from d2csr.evaluation.panels import to_image
from d2csr.html_report import write_pictures
from d2csr.html_report.encoding import ENCODINGS
from d2csr.html_report.pictures import Crop, choose_crops, compared, error_image, squared_error
from image_results import LEAVES, make_result


def written(folder: Path, index: int = 0) -> dict[str, Any]:
    return json.loads((folder / "images" / f"{index:04d}" / "pictures.json").read_text())


def pixels(folder: Path, picture: dict[str, Any], index: int = 0) -> np.ndarray:
    with Image.open(folder / "images" / f"{index:04d}" / (picture["full"] or picture["shown"])) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix != ".json")


def test_the_pictures_are_those_of_the_result(tmp_path: Path) -> None:
    result = make_result(7)
    write_pictures(result, tmp_path, 1)
    found = written(tmp_path, 7)
    assert [one["name"] for one in found["comparison"]] == ["LR", "bicubic", *LEAVES, "mean", "fusion", "HR"]
    assert [one["kind"] for one in found["comparison"]] == ["lr", "method", *4 * ["leaf"], *2 * ["method"], "hr"]
    images = [result.lr, *result.images.values(), result.hr]
    for one, image in zip(found["comparison"], images, strict=True):
        assert np.array_equal(pixels(tmp_path, one["picture"], 7), np.asarray(to_image(image)))
    assert [one["name"] for one in found["errors"]] == ["bicubic", "mean", "fusion"]
    fusion = result.images["fusion"].clamp(0, 1)
    assert found["errors"][-1]["rms"] == pytest.approx((fusion - result.hr).square().mean().sqrt().item())


def test_each_leaf_has_its_weight_and_its_difference_from_the_mean(tmp_path: Path) -> None:
    result = make_result(0)
    assert result.weights is not None
    write_pictures(result, tmp_path, 1)
    for number, leaf in enumerate(written(tmp_path)["leaves"]):
        weight = result.weights[0, number].numpy()
        difference = (result.images[leaf["name"]] - result.images["mean"])[0].permute(1, 2, 0).numpy()
        shown = pixels(tmp_path, leaf["weight"])
        assert np.array_equal(shown, np.asarray(colour_weights(weight).convert("RGB")))
        expected = 255 * np.clip(0.5 + 8 * difference, 0, 1)
        assert np.abs(pixels(tmp_path, leaf["difference"]) - expected).max() < 0.51
        assert leaf["rms"] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-4)
        assert leaf["weight_range"] == pytest.approx([weight.min(), weight.mean(), weight.max()])


def test_crops_show_the_same_part_of_all_methods_without_loss(tmp_path: Path) -> None:
    result = make_result(0)
    write_pictures(result, tmp_path, 10_000)  # the smallest encoding
    found = written(tmp_path)
    assert found["encoding"] == ENCODINGS[-1].name
    crop, shown = found["crops"][0]
    rows, columns = (slice(crop[start], crop[start] + crop["side"]) for start in ("top", "left"))
    images = {**result.images, "HR": result.hr}
    for one in shown[1:]:
        expected = np.asarray(to_image(images[one["name"]]))[rows, columns]
        assert np.array_equal(pixels(tmp_path, one["picture"]), expected)
    lr = np.asarray(to_image(result.lr)).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(pixels(tmp_path, shown[0]["picture"]), lr[rows, columns])
    part = (result.images["fusion"].clamp(0, 1) - result.hr)[..., rows, columns]
    assert shown[-2]["rms"] == pytest.approx(part.square().mean().sqrt().item(), rel=1e-4)


def test_without_leaves_there_are_no_weights(tmp_path: Path) -> None:
    result = make_result(0, others=("SwinIR",))
    images = {name: result.images[name] for name in ("bicubic", "SwinIR", "fusion")}
    write_pictures(replace(result, images=images, weights=None), tmp_path, 1)
    found = written(tmp_path)
    assert found["leaves"] == []
    assert [one["kind"] for one in found["comparison"]] == ["lr", *3 * ["method"], "hr"]
    assert found["crops_by"] == ["SwinIR", "fusion"]


def test_a_method_may_be_called_like_a_leaf(tmp_path: Path) -> None:
    write_pictures(make_result(0, others=("leaf 99", "HR", "mean of three")), tmp_path, 1)
    found = written(tmp_path)
    assert [one["name"] for one in found["comparison"] if one["kind"] == "leaf"] == list(LEAVES)
    assert len({one["picture"]["shown"] for one in found["comparison"]}) == len(found["comparison"])


@pytest.mark.slow
def test_pictures_that_exceed_their_share_are_written_smaller(tmp_path: Path, monkeypatch) -> None:
    write_pictures(make_result(0), tmp_path, 1)
    [folder] = (tmp_path / "images").iterdir()
    whole = size(folder)
    monkeypatch.setattr("d2csr.html_report.pictures.REPORT_BYTES", whole - 5000)
    monkeypatch.setattr("d2csr.html_report.pictures.candidates", lambda *_: iter(ENCODINGS))
    write_pictures(make_result(0), tmp_path, 1)
    assert written(tmp_path)["encoding"] != ENCODINGS[0].name
    assert size(folder) <= whole - 5000


def test_an_error_has_the_colour_of_its_share_of_the_scale() -> None:
    error = torch.tensor([[0.0, 0.05, 0.1, 0.3]]) ** 2
    colours = 255 * np.array(matplotlib.colormaps["inferno"].colors)
    expected = np.rint(colours[[0, 128, 255, 255]])
    assert np.array_equal(np.asarray(error_image(error))[0], expected)


def test_the_error_is_that_of_the_clamped_image() -> None:
    hr = torch.zeros(1, 3, 1, 2)
    image = torch.tensor([[-0.5, 0.3], [0.0, 0.3], [0.0, 0.6]]).reshape(1, 3, 1, 2)
    assert squared_error(image, hr)[0].tolist() == pytest.approx([0, (0.09 + 0.09 + 0.36) / 3])


def test_the_colour_bar_begins_and_ends_as_the_colour_map() -> None:
    assert css_gradient(inferno(), 3) == "rgb(0 0 4), rgb(188 55 84), rgb(252 255 164)"


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
