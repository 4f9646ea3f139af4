"""``d2csr-eval`` gives the official figures, and says clearly what it cannot evaluate."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "eval-x4"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture
def test_list(tmp_path: Path) -> Path:
    path = tmp_path / "golden pairs.txt"
    path.write_text("".join(f"{GOLDEN / name}_LR4.png {GOLDEN / name}_HR.png\n" for name in EXPECTED["images"]))
    return path


def test_an_official_checkpoint_gets_the_official_figures(call, test_list: Path, tmp_path: Path) -> None:
    finished = call(
        "eval",
        f"ckpt={GOLDEN / 'official.pkl'}",
        f'data.test_list="{test_list}"',
        "hydra.run.dir=out",
        "save=[sr,panels]",
        "trainer=cpu",
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (found["protocol"], found["scale"]) == ("d2csr", 4)
    assert found["mean"]["psnr"] == pytest.approx(EXPECTED["mean"]["psnr"], abs=1e-3)
    assert found["mean"]["ssim"] == pytest.approx(EXPECTED["mean"]["ssim"], abs=1e-4)
    for image, (name, expected) in zip(found["images"], EXPECTED["images"].items(), strict=True):
        assert image["lr"] == str(GOLDEN / f"{name}_LR4.png")
        assert image["hr"] == str(GOLDEN / f"{name}_HR.png")
        assert image["psnr"] == pytest.approx(expected["psnr"], abs=1e-3)
        assert image["ssim"] == pytest.approx(expected["ssim"], abs=1e-4)
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["psnr"]) for row in rows] == [image["psnr"] for image in found["images"]]


def test_the_table_compares_with_bicubic_each_leaf_and_their_mean(call, test_list: Path) -> None:
    finished = call("eval", f"ckpt={GOLDEN / 'official.pkl'}", f'data.test_list="{test_list}"', "trainer=cpu")
    table = finished.stdout
    methods = ["bicubic", "leaf 11", "leaf 12", "leaf 21", "leaf 22", "mean", "fusion"]
    rows = [line for line in table.splitlines() if line.startswith(tuple(methods))]
    assert [row[:12].strip() for row in rows] == methods
    fused = rows[-1][12:].split()
    assert float(fused[0]) == pytest.approx(EXPECTED["mean"]["psnr"], abs=0.006)
    assert float(fused[1]) == pytest.approx(float(fused[0]) - float(rows[0][12:].split()[0]), abs=0.011)


def test_pictures_are_saved_at_hr_size(call, test_list: Path, tmp_path: Path) -> None:
    call(
        "eval",
        f"ckpt={GOLDEN / 'official.pkl'}",
        f'data.test_list="{test_list}"',
        "hydra.run.dir=out",
        "save=[sr,panels]",
        "trainer=cpu",
    )
    for name, expected in EXPECTED["images"].items():
        height, width = (4 * side for side in expected["lr_size_hw"])
        sr = np.asarray(Image.open(tmp_path / "out" / "sr" / f"{name}_LR4.png").convert("RGB"), dtype=float)
        hr = np.asarray(Image.open(GOLDEN / f"{name}_HR.png").convert("RGB"), dtype=float)[:height, :width]
        assert sr.shape == hr.shape
        # All three channels take part, so a swapped pair of channels would not pass: it is far from HR in colour.
        assert np.abs(sr - hr).mean() < np.abs(sr[..., ::-1] - hr).mean() / 1.5
        panel = Image.open(tmp_path / "out" / "panels" / f"{name}_LR4.png")
        assert panel.width > 5 * width
        assert panel.height > 3 * height


def test_the_test_pairs_of_a_folder_need_no_list(call, tmp_path: Path) -> None:
    for name in EXPECTED["images"]:
        for kind, suffix in (("HR", "HR"), ("LR", "LR4")):
            folder = tmp_path / "my data" / "test" / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes((GOLDEN / f"{name}_{suffix}.png").read_bytes())
    finished = call(
        "eval",
        f"ckpt={GOLDEN / 'official.pkl'}",
        'data.root="my data"',
        "data.name=pairs",
        "hydra.run.dir=out",
        "trainer=cpu",
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["mean"]["psnr"] == pytest.approx(EXPECTED["mean"]["psnr"], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ckpt=… is missing"),
        (["ckpt=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        ([f"ckpt={GOLDEN / 'official.pkl'}"], "add data.test_list=LIST"),
        ([f"ckpt={GOLDEN / 'official.pkl'}", "data.test_list=nowhere.txt"], "nowhere.txt: no such list"),
        ([f"ckpt={GOLDEN / 'expected.json'}", "data.test_list=a.txt"], "refused, nothing of it was run"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_message(call, arguments: list[str], message: str) -> None:
    finished = call("eval", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_an_unknown_protocol_and_picture_are_named(call, test_list: Path) -> None:
    known = [f"ckpt={GOLDEN / 'official.pkl'}", f'data.test_list="{test_list}"']
    assert "must be one of d2csr, cdc, y" in call("eval", *known, "protocol=ycbcr").stderr
    assert "must be of sr, panels" in call("eval", *known, "save=video").stderr


def test_a_checkpoint_of_another_scale_than_the_list_is_named(call, test_list: Path) -> None:
    checkpoint = GOLDEN.parent / "net-x2-f16-b1.pkl"
    finished = call("eval", f"ckpt={checkpoint}", f'data.test_list="{test_list}"')
    assert finished.returncode == 1
    assert "these do not fit the scale 2" in finished.stderr
    assert "golden pairs.txt:1" in finished.stderr
    assert "golden pairs.txt:2" in finished.stderr


def test_a_full_traceback_is_there_for_those_who_ask(run) -> None:
    finished = run("eval", "ckpt=nowhere.ckpt", HYDRA_FULL_ERROR="1")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
