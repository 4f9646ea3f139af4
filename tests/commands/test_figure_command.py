"""``d2csr-figure``: the files, and its messages."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from d2csr.checkpoints import save_model

GOLDEN = Path(__file__).parents[1] / "golden" / "eval-x4"
KNOWN = ["data.test_list=pairs.txt", "trainer=cpu", "image=china_LR4", "crops={roof: [4,8,40,36]}"]


@pytest.fixture(autouse=True)
def pairs(tmp_path: Path) -> None:
    """Two pairs of scale 4, and the HR images as those of another method."""
    (tmp_path / "Copy").mkdir()
    for name in ("china", "astronaut"):
        for kind in ("LR4", "HR"):
            shutil.copy(GOLDEN / f"{name}_{kind}.png", tmp_path)
        shutil.copy(GOLDEN / f"{name}_HR.png", tmp_path / "Copy" / f"{name}_LR4_out.png")
    (tmp_path / "pairs.txt").write_text("".join(f"{one}_LR4.png {one}_HR.png\n" for one in ("china", "astronaut")))


@pytest.mark.slow
def test_a_figure_is_a_pdf_and_a_png_of_the_stated_width(call, random_model, tmp_path: Path, monkeypatch) -> None:
    save_model(tmp_path / "x4.ckpt", random_model(4))
    shown = []
    monkeypatch.setattr("d2csr.figures.write_figure", recorded(shown))
    finished = call("figure", "ckpt=x4.ckpt", "sr=Copy", *KNOWN, "output=fig/china", "width_mm=84", "scores=image")
    assert finished.returncode == 0, finished.stderr
    assert "\nfig/china.pdf: 84 × " in finished.stdout
    assert (tmp_path / "fig" / "china.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(tmp_path / "fig" / "china.png") as image:
        assert abs(image.width - 84 / 25.4 * 300) <= 1
    [content] = shown
    assert [cell.label for cell in content.rows[0]] == ["LR", "bicubic", "Copy", "fusion", "HR"]
    # The scores are those of d2csr-eval, on 8-bit images beside those of another method.
    call("eval", "ckpt=x4.ckpt", "sr=Copy", *KNOWN[:2], "hydra.run.dir=out")
    image = json.loads((tmp_path / "out" / "metrics.json").read_text())["images"][0]["methods"]
    for cell, name in zip(content.rows[0][1:4], ("bicubic", "Copy", "fusion"), strict=True):
        assert (cell.scores["ssim"], name) == (pytest.approx(image[name]["ssim"], abs=1e-9), name)


def recorded(contents: list):
    """Return ``write_figure``, which also keeps the contents."""
    from d2csr.figures import write_figure

    def write(content, style, paths):
        contents.append(content)
        return write_figure(content, style, paths)

    return write


@pytest.mark.slow
def test_a_suffix_chooses_one_format_and_files_are_kept(call, tmp_path: Path) -> None:
    arguments = ["sr=Copy", *KNOWN, "output=china.png", "methods=[LR,Copy]", "labels={Copy: ours}", "overview=none"]
    assert call("figure", *arguments).returncode == 0
    assert sorted(path.name for path in tmp_path.glob("china.*")) == ["china.png"]
    finished = call("figure", *arguments)
    assert finished.returncode == 1
    assert "output: china.png exists; choose another name, or add overwrite=true" in finished.stderr
    assert call("figure", *arguments, "overwrite=true").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image=chna_LR4"], "image: no test image is called chna_LR4. Did you mean china_LR4?"),
        (["crops={roof: [400,8,40,36]}"], "crops: roof, 40×36 at 400,8, exceeds the image of"),
        (["crops=[1,2,3]"], "must be [x,y,width,height] in HR pixels"),
        (["methods=[HR,SwinIR]"], "no method is called SwinIR; the names are LR, bicubic, Copy, HR"),
        (["width_mm=wide"], "width_mm: must be a number"),
        (["scores=yes"], "scores: must be one of crop, image, none"),
        (["protocol=x"], "protocol"),
        (["sr=nowhere"], "sr: nowhere: no such folder or list"),
    ],
)
def test_mistakes_end_in_one_message_and_write_nothing(call, tmp_path: Path, arguments, message) -> None:
    changed = {argument.partition("=")[0] for argument in arguments}
    known = [one for one in ["sr=Copy", *KNOWN] if one.partition("=")[0] not in changed]
    finished = call("figure", *known, *arguments, "output=fig/china")
    assert finished.returncode == 1
    assert message in finished.stderr
    assert finished.stderr.count("error: ") == 1
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "fig").exists()


def test_a_missing_package_is_named(call, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finished = call("figure", "sr=Copy", *KNOWN, "output=fig")
    assert finished.stderr == "error: A figure needs matplotlib; install it by: pip install 'd2csr[report]'.\n"
