"""``d2csr-upscale`` writes what the model gives, skips what is there, and goes on past a broken image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2csr

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "eval-x4" / "official.pkl"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    picture = Image.open(GOLDEN / "eval-x4" / "china_LR4.png").convert("RGB").crop((0, 0, 40, 30))
    picture.save(folder / "one.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "deep" / "er" / "two.JPG", quality=100)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_keeps_its_structure_and_gets_what_the_model_gives(call, photos: Path, tmp_path: Path) -> None:
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu")
    assert finished.returncode == 0, finished.stderr
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "deep/er/two.png",
        "one.png",
    ]
    lr = torch.from_numpy(np.array(Image.open(photos / "one.png"))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = (d2csr.load_model(CHECKPOINT)(lr).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    written = np.asarray(Image.open(tmp_path / "out" / "one.png"), dtype=float)
    assert np.abs(written - expected).max() <= 1  # a rounding apart, where the exact value lies at one half
    assert (written == expected).mean() > 0.999
    assert Image.open(tmp_path / "out" / "deep" / "er" / "two.png").size == (120, 160)


def test_what_is_there_is_skipped_unless_it_is_to_be_overwritten(call, photos: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={CHECKPOINT}", "input=photos/one.png", "output=out", "device=cpu"]
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "one.png"
    target.write_text("mine")
    assert call("upscale", *arguments).returncode == 0
    assert target.read_text() == "mine"
    assert call("upscale", *arguments, "overwrite=true").returncode == 0
    assert Image.open(target).size == (160, 120)


def test_a_broken_image_is_reported_and_the_rest_is_done(call, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "one.png").read_bytes()
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").write_bytes(b"")
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu")
    assert finished.returncode == 1
    assert "2 of 4 images" in finished.stderr
    assert "broken.png" in finished.stderr
    assert "empty.png: an empty file" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=nowhere", "output=out"], "nowhere: no such file or folder"),
        (["input=nothing", "output=out"], "holds no image"),
        (["input=twins", "output=out"], "would both become"),
    ],
)
def test_bad_input_is_named(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "twins").mkdir()
    for suffix in ("png", "jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / "twins" / f"same.{suffix}")
    finished = call("upscale", f"ckpt={CHECKPOINT}", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
