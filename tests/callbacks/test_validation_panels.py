"""Panels of validation images, against the outputs of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from d2csr.callbacks.validation_panels import ValidationPanels
from d2csr.commands.base import config_dir
from d2csr.errors import ConfigError
from d2csr.evaluation import panels as module
from d2csr.metrics import psnr
from helpers import build_task

PANELS = OmegaConf.load(Path(config_dir()) / "callbacks" / "default.yaml").panels
SHIPPED = {name: PANELS[name] for name in ("images", "crop", "at", "zoom", "every", "files")}


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
    """Train for some epochs, with a validation after each; returns the task and the folder of the panels."""

    def train(epochs=1, **settings):
        torch.manual_seed(0)
        task = build_task(optimization="joint", **tiny, optimizer={"lr": 0.01})
        panels = ValidationPanels(tmp_path / "panels", **{**SHIPPED, **settings})
        trainer(max_epochs=epochs, callbacks=[panels]).fit(
            task, DataLoader(batches, batch_size=None), DataLoader(images, batch_size=1)
        )
        return task, tmp_path / "panels"

    return train


@pytest.fixture
def cells(monkeypatch):
    """The cells of the panels that are drawn, by name, as H×W×3."""
    panels = []
    original = module.draw_grid

    def draw_grid(rows, bars):
        panels.append({cell.name: (np.asarray(cell.image), cell.note) for row in rows for cell in row})
        return original(rows, bars)

    monkeypatch.setattr(module, "draw_grid", draw_grid)
    return panels


def seen(image, zoom):
    """Return a 3×H×W image as a sheet shows it."""
    pixels = np.rint(image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


@pytest.mark.parametrize(("settings", "top", "left"), [({}, 6, 3), ({"at": [4, 9]}, 4, 2)])
def test_a_panel_shows_a_part_of_the_outputs_for_the_whole_image(drawn, images, cells, settings, top, left):
    task, folder = drawn(images=1, crop=64, **settings)
    assert [path.name for path in folder.iterdir()] == ["0000.png"]
    [panel] = cells
    lr, hr = images[0]["lr"], images[0]["hr"]  # by default the middle: (45 − 32) // 2, (39 − 32) // 2
    with torch.no_grad():
        predictions = task.network.divergence(lr[None])
        sr, weights = task.network.convergence(predictions)
    part = (slice(None), slice(2 * top, 2 * top + 64), slice(2 * left, 2 * left + 64))
    zoom = 2
    assert np.array_equal(panel["LR"][0], seen(lr[:, top : top + 32, left : left + 32], 2 * zoom))
    assert np.array_equal(panel["HR"][0], seen(hr[part], zoom))
    shown = {"fusion": sr[0], "mean": predictions[0].mean(0), "leaf 21": predictions[0, 2]}
    for name, image in shown.items():
        assert np.abs(panel[name][0].astype(int) - seen(image[part], zoom)).max() <= 1, name
    assert panel["weight 21"][1].endswith(f"mean {weights[0, 2][part[1:]].mean():.2f}")
    score = psnr(sr[..., part[1], part[2]], hr[None][..., part[1], part[2]], scale=2).item()
    assert panel["fusion"][1].startswith(f"{score:.2f} dB / ")


def test_small_images_are_shown_whole(drawn, images, cells):
    drawn(images=2)
    assert np.array_equal(cells[1]["HR"][0], seen(images[1]["hr"], 256 // 24))


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
        ({"at": [1]}, r"at: must be \[x,y\] in HR pixels, got \[1\]"),
        ({"zoom": 0}, r"zoom: must be a whole number from 1 to 32, got 0"),
        ({"every": 0}, r"every: must be a whole number from 1 up, got 0"),
        ({"images": True}, r"images: must be a whole number"),
        ({"files": "some"}, r"files: must be one of last, all, none, got 'some'"),
    ],
)
def test_an_impossible_setting_is_named(setting, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        ValidationPanels(tmp_path, **{**SHIPPED, **setting})
