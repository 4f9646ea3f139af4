"""Panels of ``d2csr-eval``: their settings, and the command that draws the image of the README."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "eval-x4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["save=panels", "panels.crop=31"], "panels.crop: must be a whole number from 32 up, got 31"),
        (["save=panels", "panels.at=[1,2]"], "panels.at: needs crop too"),
        (["save=panels", "panels.crop=64", "panels.at=5"], "panels.at: must be [x,y] in HR pixels, got 5"),
        (["panels.crop=64"], "panels: no panel is drawn; add save=panels"),
    ],
)
def test_impossible_settings_are_named(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "list.txt").write_text(f"{GOLDEN / 'china_LR4.png'} {GOLDEN / 'china_HR.png'}\n")
    data = "data.test_list=list.txt"
    finished = call("eval", f"ckpt={GOLDEN / 'official.pkl'}", data, "hydra.run.dir=out", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_the_documented_command_draws_the_picture_of_the_readme(run, demo_run: Path, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "pictures.md").read_text(encoding="utf-8")
    command = re.search(r"^d2csr-eval .*panels.*$", text, re.MULTILINE)
    assert command is not None
    shutil.copytree(demo_run, tmp_path / "runs" / "demo")
    finished = run("eval", *shlex.split(command[0])[1:])
    assert finished.returncode == 0, finished.stderr
    shown = REPOSITORY / "docs" / "demo.png"
    drawn, expected = (
        np.asarray(Image.open(path)).astype(int)
        for path in (tmp_path / "runs" / "panels" / "panels" / "astronaut_LR2.png", shown)
    )
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected)[:, :264].mean() < 0.5  # whole HR, LR and bicubic with their captions
    assert np.abs(drawn - expected)[:300, 264:].mean() < 4  # predictions of a network that was trained elsewhere
