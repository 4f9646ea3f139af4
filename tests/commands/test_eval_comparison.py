"""Scores of other methods' images, and of several checkpoints, in one table."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from d2csr.checkpoints import save_model
from d2csr.evaluation.baselines import bicubic
from helpers import mostly_slow

GOLDEN = Path(__file__).parents[1] / "golden" / "eval-x4"
NAMES = ("china", "astronaut")
CPU = ["trainer=cpu", "data.num_workers=0", "hydra.run.dir=out"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A list of small pairs of scale 4, parts of the golden ones."""
    lines = []
    for name in NAMES:
        for kind, side in (("LR4", 16), ("HR", 64)):
            with Image.open(GOLDEN / f"{name}_{kind}.png") as image:
                image.convert("RGB").crop((0, 0, side, side)).save(tmp_path / f"{name}_{kind}.png")
        lines.append(f"{name}_LR4.png {name}_HR.png\n")
    (tmp_path / "pairs.txt").write_text("".join(lines))
    return tmp_path / "pairs.txt"


@pytest.fixture
def other_method(pairs: Path) -> Path:
    """A folder with the pairs' HR images and noise."""
    random = np.random.default_rng(0)
    folder = pairs.parent / "SwinIR"
    folder.mkdir()
    for name in NAMES:
        hr = np.asarray(Image.open(pairs.parent / f"{name}_HR.png"), dtype=int)
        noisy = (hr + random.integers(-20, 21, hr.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{name}_x4_SwinIR.png")
    return folder


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_images_of_another_method_are_scored_without_a_checkpoint(call, pairs, other_method, tmp_path) -> None:
    finished = call("eval", "sr=SwinIR", "data.test_list=pairs.txt", "protocols=[cdc,d2csr]", "save=panels", *CPU)
    assert finished.returncode == 0, finished.stderr
    found = metrics(tmp_path / "out")
    assert (found["scale"], found["method"], list(found["methods"])) == (4, "SwinIR", ["bicubic", "SwinIR"])
    for image, name in zip(found["images"], NAMES, strict=True):
        files = (other_method / f"{name}_x4_SwinIR.png", tmp_path / f"{name}_HR.png")
        sr, hr = (np.asarray(Image.open(file), dtype=float) / 255 for file in files)
        luma = [(image @ [65.738, 129.057, 25.064] / 256)[4:-4, 4:-4] for image in (sr, hr)]
        assert image["psnr"] == pytest.approx(peak_signal_noise_ratio(luma[1], luma[0], data_range=1), abs=1e-4)
        assert image["psnr"] == image["methods"]["SwinIR"]["psnr"]
    assert list(found["protocols"]["d2csr"]["methods"]) == ["bicubic", "SwinIR"]
    assert found["sr"] == [{"method": "SwinIR", "path": "SwinIR"}]
    assert found["checkpoints"] == []
    assert "SwinIR" in finished.stdout
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 2


def test_all_methods_are_scored_as_images_of_8_bits(call, pairs, other_method, tmp_path) -> None:
    (tmp_path / "eight").mkdir()
    for name in NAMES:
        lr = torch.from_numpy(np.array(Image.open(tmp_path / f"{name}_LR4.png"))).permute(2, 0, 1)[None] / 255
        made = np.rint(bicubic(lr, 4)[0].permute(1, 2, 0).numpy().clip(0, 1) * 255).astype(np.uint8)
        Image.fromarray(made).save(tmp_path / "eight" / f"{name}.png")
    call("eval", "sr=eight", "data.test_list=pairs.txt", "protocols=cdc", *CPU)  # cdc itself does not clamp
    found = metrics(tmp_path / "out")["methods"]
    assert found["bicubic"] == pytest.approx(found["eight"], abs=1e-7)


@pytest.mark.parametrize("arguments", [["sr=[SwinIR,three.txt]"], ["sr=three.txt", "scale=4"]])
def test_a_list_of_three_columns_needs_no_other_list(call, pairs, other_method, tmp_path, arguments) -> None:
    rows = [f"{name}_LR4.png {name}_HR.png SwinIR/{name}_x4_SwinIR.png\n" for name in NAMES]
    (tmp_path / "three.txt").write_text("".join(rows))
    finished = call("eval", *arguments, *CPU)
    assert finished.returncode == 0, finished.stderr
    found = metrics(tmp_path / "out")["methods"]
    assert found["three"]["psnr"] > 20
    assert found.get("SwinIR", found["three"]) == found["three"]


def test_saved_images_have_the_scores_that_the_comparison_shows(call, pairs, random_model, tmp_path) -> None:
    save_model(tmp_path / "x4.ckpt", random_model(4))
    known = ["ckpt=x4.ckpt", "data.test_list=pairs.txt", *CPU]
    call("eval", *known, "save=sr")
    (tmp_path / "out" / "sr").rename(tmp_path / "ours")
    finished = call("eval", *known, "sr=ours", "protocols=cdc")
    assert finished.returncode == 0, finished.stderr
    found = metrics(tmp_path / "out")
    names = ["bicubic", "ours", "leaf 11", "leaf 12", "leaf 21", "leaf 22", "mean", "fusion"]
    assert list(found["methods"]) == names
    for image in found["images"]:
        assert image["methods"]["ours"] == pytest.approx(image["methods"]["fusion"], abs=1e-6)
    assert set(found["oracle"]) == {"per pixel", "per 8x8 block"}
    [checkpoint] = found["checkpoints"]
    assert checkpoint["sha256"] == hashlib.sha256((tmp_path / "x4.ckpt").read_bytes()).hexdigest()
    assert found["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "ckpt=x4.ckpt" in found["environment"]["command"]


@pytest.mark.slow
def test_checkpoints_that_differ_by_their_seed_have_a_mean(call, pairs, random_model, tmp_path) -> None:
    for seed in range(3):
        path = tmp_path / f"run {seed}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        save_model(path, random_model(4, seed=seed))
        content = torch.load(path, weights_only=True)
        torch.save({**content, "settings": {"seed": seed, "model": {"features": 16}}}, path)
    finished = call("eval", "ckpt=[run 0,run 1,run 2]", "data.test_list=pairs.txt", "save=sr", *CPU)
    assert finished.returncode == 0, finished.stderr
    found = metrics(tmp_path / "out")
    runs = ["run 0", "run 1", "run 2"]
    assert list(found["methods"]) == ["bicubic", *runs]
    [group] = found["seeds"]
    assert (group["methods"], group["seeds"]) == (runs, [0, 1, 2])
    psnrs = [found["methods"][run]["psnr"] for run in runs]
    assert group["mean"]["psnr"] == pytest.approx(np.mean(psnrs))
    assert group["std"]["psnr"] == pytest.approx(np.std(psnrs, ddof=1))
    assert f"{np.mean(psnrs):.2f} ± {np.std(psnrs, ddof=1):.2f}" in finished.stdout
    with (tmp_path / "out" / "table.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["bicubic", *runs, "run 0, run 1, run 2 (3 seeds)"]
    call("eval", "ckpt=run 1", "data.test_list=pairs.txt", "hydra.run.dir=alone", *CPU[:2])
    assert metrics(tmp_path / "alone")["mean"] == pytest.approx(found["methods"]["run 1"], abs=1e-9)
    assert len(list((tmp_path / "out" / "sr").glob("*/china_LR4.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    mostly_slow(
        [
            (["sr=nowhere", "data.test_list=pairs.txt"], "sr: nowhere: no such folder or list"),
            (["sr=empty", "data.test_list=pairs.txt"], "2 of 2 pairs do not have exactly one SR image"),
            (["sr=SwinIR"], "data.test_list=… is missing"),
            (["sr=SwinIR", "data.root=."], "scale=… is missing"),
            (["sr=SwinIR", "data.test_list=pairs.txt", "scale=2"], "these do not fit the scale 2"),
            (["sr=SwinIR", "data.test_list=pairs.txt", "scale=5"], "scale: must be one of 2, 3, 4, 8, got 5"),
            (["sr=[SwinIR,SwinIR]", "data.test_list=pairs.txt"], "/SwinIR is named twice"),
            (
                ["ckpt=[run,run/checkpoints/best.ckpt]", "data.test_list=pairs.txt"],
                "/run/checkpoints/best.ckpt is named twice",
            ),
            (["sr=true", "data.test_list=pairs.txt"], "sr: true: no such folder or list."),
            (["sr=SwinIR", "data.test_list=pairs.txt", "save=sr"], "save=sr writes the images of a checkpoint"),
            (["sr=SwinIR", "data.test_list=pairs.txt", "compare=true"], "compare=true compares the leaves of one"),
            (["ckpt=[x4.ckpt,x2.ckpt]", "data.test_list=pairs.txt"], "scale: differs: x4.ckpt ×4, x2.ckpt ×2"),
            (["ckpt=x4.ckpt", "data.test_list=pairs.txt", "scale=2"], "x4.ckpt ×4, scale= ×2. Omit scale="),
            (["ckpt=[]"], "ckpt=… is missing, or sr=FOLDER"),
        ]
    ),
)
def test_mistakes_end_in_one_message(call, other_method, random_model, tmp_path, arguments, message) -> None:
    (tmp_path / "empty").mkdir()
    for scale in (2, 4):
        save_model(tmp_path / f"x{scale}.ckpt", random_model(scale))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    save_model(tmp_path / "run" / "checkpoints" / "best.ckpt", random_model(4))
    finished = call("eval", *arguments, *CPU)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert finished.stderr.count("error: ") == 1
    assert "Traceback" not in finished.stderr


def test_checkpoints_of_different_test_lists_need_a_list(call, pairs, random_model, tmp_path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(pairs.read_text())
        save_model(
            tmp_path / f"{name}.ckpt", random_model(4), {"name": "pairs", "test_list": str(tmp_path / f"{name}.txt")}
        )
    finished = call("eval", "ckpt=[a.ckpt,b.ckpt]", *CPU)
    assert finished.returncode == 1
    assert "the checkpoints name different test pairs; add data.test_list=LIST" in finished.stderr
    save_model(tmp_path / "b.ckpt", random_model(4), {"name": "mine", "test_list": str(tmp_path / "a.txt")})
    assert call("eval", "ckpt=[a.ckpt,b.ckpt]", *CPU).returncode == 0
