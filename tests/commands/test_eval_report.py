"""``d2csr-eval report=true``: the page and its pictures in the folder of the evaluation."""

from __future__ import annotations

import html
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from d2csr.checkpoints import save_model
from pair_files import write_pairs

CPU = ["trainer=cpu", "data.num_workers=0", "hydra.run.dir=out", "data.test_list=pairs.txt"]


@pytest.fixture(autouse=True)
def pairs(tmp_path: Path) -> None:
    """Two pairs of scale 2, and their HR images as those of another method."""
    write_pairs(tmp_path, 2, 24, 32, "pairs.txt")
    (tmp_path / "Swin & co").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / f"hr{number}.png", tmp_path / "Swin & co" / f"lr{number}_out.png")


def test_the_report_has_scores_pictures_and_how_it_was_made(call, random_model, tmp_path: Path) -> None:
    save_model(tmp_path / "x2.ckpt", random_model(2))
    finished = call("eval", "ckpt=x2.ckpt", "sr=Swin & co", "report=true", "protocols=[cdc,y]", *CPU)
    assert finished.returncode == 0, finished.stderr
    path = tmp_path / "out" / "report" / "index.html"
    assert f"Report: {path}" in finished.stdout
    page = html.unescape(path.read_text())
    for text in ("protocol cdc", "Scores of different protocols", "oracle per pixel", "Swin & co", "leaf 22", "fusion"):
        assert text in page
    assert "ckpt=x2.ckpt" in page  # the command
    assert re.search(r"<code>[0-9a-f]{64}</code>", page)
    assert f"torch {torch.__version__.partition('+')[0]}" in page
    assert "on_error: raise" in page  # of the settings
    assert page.count("<article") == 2
    assert len(list((path.parent / "images").glob("*/weight*.webp"))) == 2 * 4


@pytest.mark.slow
def test_several_checkpoints_have_no_leaves_and_a_mean_over_seeds(call, random_model, tmp_path: Path) -> None:
    for seed in range(2):
        path = tmp_path / f"run{seed}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        save_model(path, random_model(2, seed=seed))
        content = torch.load(path, weights_only=True)
        torch.save({**content, "settings": {"seed": seed}}, path)
    (tmp_path / "out" / "report" / "images" / "0007").mkdir(parents=True)  # of an evaluation of more images
    finished = call("eval", "ckpt=[run0/checkpoints/last.ckpt,run1/checkpoints/last.ckpt]", "report=true", *CPU)
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "run0, run1 (2 seeds)" in page
    assert "Leaves and weights are shown for a single checkpoint only; this report compares 2." in page
    images = tmp_path / "out" / "report" / "images"
    assert sorted(path.name for path in images.iterdir()) == ["0000", "0001"]
    assert not list(images.glob("*/weight*"))


def test_a_missing_package_ends_the_command_before_the_evaluation(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finished = call("eval", "sr=Swin & co", "report=true", *CPU)
    assert finished.returncode == 1
    assert finished.stderr == "error: report: needs matplotlib; install it by: pip install 'd2csr[report]'.\n"
    assert not (tmp_path / "out").exists()


def test_without_a_report_no_package_is_needed(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finished = call("eval", "sr=Swin & co", *CPU)
    assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / "out" / "report").exists()


def test_an_impossible_value_is_refused(call) -> None:
    finished = call("eval", "sr=Swin & co", "report=yes please", *CPU)
    assert "report: must be true or false, got 'yes please'" in finished.stderr
