"""The demo: higher scores than bicubic on photographs that it was not trained on, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2csr

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def metrics(demo_run: Path) -> dict:
    return json.loads((demo_run / "eval" / "metrics.json").read_text())


def test_the_fusion_is_half_a_decibel_above_bicubic(metrics: dict) -> None:
    methods = metrics["methods"]
    assert methods["fusion"]["psnr"] >= methods["bicubic"]["psnr"] + 0.5
    assert methods["fusion"]["ssim"] > methods["bicubic"]["ssim"]
    assert metrics["mean"] == methods["fusion"]


def test_the_fusion_is_no_worse_than_the_best_leaf_by_more_than_a_tenth(metrics: dict) -> None:
    methods = metrics["methods"]
    best = max(scores["psnr"] for name, scores in methods.items() if name.startswith("leaf"))
    assert methods["fusion"]["psnr"] > best - 0.1


def test_the_scores_are_of_the_test_photographs(metrics: dict) -> None:
    assert [Path(image["lr"]).name.split("_")[0] for image in metrics["images"]] == ["astronaut", "china", "flower"]
    assert all(Path(image["lr"]).parent.name == "test" for image in metrics["images"])


def test_each_test_photograph_has_a_panel(demo_run: Path, metrics: dict) -> None:
    scale = metrics["scale"]
    for image in metrics["images"]:
        panel = Image.open(demo_run / "eval" / "panels" / f"{Path(image['lr']).stem}.png")
        width, height = Image.open(image["lr"]).size
        assert panel.width > 5 * scale * width  # LR, bicubic, mean, fusion, HR
        assert panel.height > 3 * scale * height  # with the leaves and their weights below


def test_the_leaves_differ_and_the_weights_choose_among_them(demo_run: Path) -> None:
    model = d2csr.load_model(demo_run)
    with Image.open(next((demo_run / "pairs").rglob("test/china_LR*.png"))) as image:
        lr = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        predictions = model.divergence(lr)
        _, weights = model.convergence(predictions)
    assert predictions.std(dim=1).mean() * 255 > 0.2  # grey levels; four equal leaves would give 0
    assert weights.max() > 0.3  # four equal weights would be 0.25


def test_the_report_shows_each_test_photograph(demo_run: Path, metrics: dict) -> None:
    report = demo_run / "eval" / "report"
    page = (report / "index.html").read_text(encoding="utf-8")
    for number, image in enumerate(metrics["images"]):
        assert f">{Path(image['lr']).stem}</a>" in page
        assert len(list((report / "images" / f"{number:04d}").glob("weight*.webp"))) == 4
