"""Panels of validation images, against the outputs of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from d2csr.callbacks import validation_panels as module
from d2csr.callbacks.validation_panels import ValidationPanels
from d2csr.errors import ConfigError
from d2csr.metrics import psnr
from helpers import build_task

CELL, GAP, LABEL = 256, 8, 26


@pytest.fixture
def images():
    """Three validation images of noise; the first one is larger than the crop, by odd numbers of LR pixels."""
    random = torch.Generator().manual_seed(0)
    pairs = []
    for index, (height, width) in enumerate(((45, 39), (10, 12), (9, 9))):
        lr, hr = (torch.rand(3, s * height, s * width, generator=random).mul(255).round() / 255 for s in (1, 2))
        pairs.append({"lr": lr, "hr": hr, "index": index})
    return pairs


@pytest.fixture
def drawn(tiny, batches, trainer, images, tmp_path):
    """Train for some epochs, with a validation after each; returns the task and the folder of the pictures."""

    def train(epochs=1, **settings):
        torch.manual_seed(0)
        task = build_task(optimization="joint", **tiny, optimizer={"lr": 0.01})
        panels = ValidationPanels(tmp_path / "panels", **settings)
        trainer(max_epochs=epochs, callbacks=[panels]).fit(
            task, DataLoader(batches, batch_size=None), DataLoader(images, batch_size=1)
        )
        return task, tmp_path / "panels"

    return train


def cell(sheet, row, column, height, width):
    """Return one picture of a sheet, as H×W×3."""
    top, left = GAP + row * (height + GAP + LABEL) + LABEL, GAP + column * (width + GAP)
    return np.asarray(sheet)[top : top + height, left : left + width]


def seen(image, zoom):
    """Return a 3×H×W image as a sheet shows it."""
    pixels = np.rint(image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def test_a_panel_shows_the_middle_of_the_outputs_for_the_whole_image(drawn, images):
    task, folder = drawn(images=1, crop=64)
    [path] = folder.iterdir()
    sheet = Image.open(path)
    lr, hr = images[0]["lr"], images[0]["hr"]
    top, left, zoom = 6, 3, 4  # (45 − 32) // 2, (39 − 32) // 2, 256 / 64
    with torch.no_grad():
        predictions = task.network.divergence(lr[None])
        sr, _ = task.network.convergence(predictions)
    middle = (slice(None), slice(2 * top, 2 * top + 64), slice(2 * left, 2 * left + 64))
    size = (64 * zoom, 64 * zoom)
    assert np.array_equal(cell(sheet, 0, 0, *size), seen(lr[:, top : top + 32, left : left + 32], 2 * zoom))
    assert np.array_equal(cell(sheet, 0, 4, *size), seen(hr[middle], zoom))
    for row, column, image in ((0, 3, sr[0]), (0, 2, predictions[0].mean(0)), (1, 2, predictions[0, 2])):
        shown = cell(sheet, row, column, *size).astype(int)
        assert np.abs(shown - seen(image[middle], zoom)).max() <= 1, (row, column)


def test_the_scores_are_those_of_the_part_that_is_shown(drawn, images, monkeypatch):
    results = []
    original = module.panel
    monkeypatch.setattr(module, "panel", lambda result: results.append(result) or original(result))
    drawn(images=1, crop=64)
    [result] = results
    shown = {name: image[..., ::4, ::4] for name, image in result.images.items()}  # without the enlargement
    hr = images[0]["hr"][None, :, 12:76, 6:70]
    assert torch.equal(result.hr[..., ::4, ::4], hr)
    assert len(result.scores) == 7
    for name, scores in result.scores.items():
        assert scores["psnr"] == pytest.approx(psnr(shown[name], hr, scale=2).item(), abs=1e-4), name


def test_small_images_are_shown_whole(drawn, images):
    _, folder = drawn(images=2)
    sheet = Image.open(folder / "0001.png")
    zoom = CELL // 24
    assert np.array_equal(cell(sheet, 0, 4, 20 * zoom, 24 * zoom), seen(images[1]["hr"], zoom))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"images": 9}, ["0000.png", "0001.png", "0002.png"]),
        ({"images": 1, "files": "all", "every": 3}, [f"0000_step{step:08d}.png" for step in (3, 12)]),
        ({"images": 1, "files": "none"}, []),
        ({"images": 0}, []),
    ],
)
def test_number_and_interval_of_panels(settings, names, drawn):
    _, folder = drawn(epochs=4, **settings)
    assert sorted(path.name for path in folder.glob("*")) == names


def test_a_panel_that_cannot_be_written_does_not_end_the_training(drawn, tmp_path):
    (tmp_path / "panels").write_text("no folder")
    with pytest.warns(UserWarning, match=r"0000\.png: the panel could not be written"):
        drawn(images=1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"images": -1}, r"images: must be a whole number from 0 up, got -1"),
        ({"crop": 31}, r"crop: must be a whole number from 32 up, got 31"),
        ({"every": 0}, r"every: must be a whole number from 1 up, got 0"),
        ({"images": True}, r"images: must be a whole number"),
        ({"files": "some"}, r"files: must be one of last, all, none, got 'some'"),
    ],
)
def test_an_impossible_setting_is_named(setting, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        ValidationPanels(tmp_path, **setting)
