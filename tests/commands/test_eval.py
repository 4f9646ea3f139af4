from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from d2csr.checkpoints import save_model
from d2csr.data.datamodule import PairDataModule
from helpers import mostly_slow

GOLDEN = Path(__file__).parents[1] / "golden" / "eval-x4"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture
def test_list(tmp_path: Path) -> Path:
    path = tmp_path / "golden pairs.txt"
    path.write_text("".join(f"{GOLDEN / name}_LR4.png {GOLDEN / name}_HR.png\n" for name in EXPECTED["images"]))
    return path


@pytest.fixture
def one_image(tmp_path: Path) -> list[str]:
    """The arguments for an evaluation of one image into ``out``."""
    path = tmp_path / "one.txt"
    path.write_text(f"{GOLDEN / 'china_LR4.png'} {GOLDEN / 'china_HR.png'}\n")
    checkpoint = GOLDEN / "official.pkl"
    return [f"ckpt={checkpoint}", f"data.test_list={path}", "data.num_workers=0", "hydra.run.dir=out", "trainer=cpu"]


def test_an_official_checkpoint_has_the_official_scores(call, test_list: Path, tmp_path: Path) -> None:
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
    log = (tmp_path / "out" / "d2csr-eval.log").read_text()
    assert "versions: d2csr" in log
    assert finished.stdout.splitlines()[-3] in log  # the last row of the table
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


@pytest.mark.slow
def test_images_are_saved_at_hr_size(call, test_list: Path, tmp_path: Path) -> None:
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


def test_protocols_are_reported_one_below_the_other(call, test_list: Path, tmp_path: Path) -> None:
    known = [f"ckpt={GOLDEN / 'official.pkl'}", f'data.test_list="{test_list}"', "hydra.run.dir=out", "trainer=cpu"]
    finished = call("eval", *known, "protocols=[d2csr,y]", "save=sr")
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["protocol"] == "d2csr"
    assert found["mean"]["psnr"] == pytest.approx(EXPECTED["mean"]["psnr"], abs=1e-3)
    # The protocol y takes images of 8 bits, so the saved image has the same scores.
    for image, (name, expected) in zip(found["protocols"]["y"]["images"], EXPECTED["images"].items(), strict=True):
        height, width = (4 * side for side in expected["lr_size_hw"])
        images = [Image.open(tmp_path / "out" / "sr" / f"{name}_LR4.png"), Image.open(GOLDEN / f"{name}_HR.png")]
        sr, hr = (rgb2ycbcr(np.asarray(p.convert("RGB"))[:height, :width])[4:-4, 4:-4, 0] for p in images)
        options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert image["psnr"] == pytest.approx(peak_signal_noise_ratio(hr, sr, data_range=255), abs=1e-4)
        assert image["ssim"] == pytest.approx(structural_similarity(sr, hr, **options), abs=1e-5)
    shown = [line.split()[1] for line in finished.stdout.splitlines() if line.startswith("fusion ")]
    assert shown == [f"{mean['psnr']:.2f}" for mean in (found["mean"], found["protocols"]["y"]["mean"])]


@pytest.mark.parametrize(
    ("arguments", "main", "others"),
    [
        ([], "d2csr", []),
        (["protocols=y"], "y", []),
        (["protocols=[cdc,y]"], "cdc", ["y"]),
        (["protocols=y,d2csr,y,cdc"], "y", ["d2csr", "cdc"]),
    ],
)
def test_the_first_protocol_is_the_main_one(
    call, one_image: list[str], tmp_path: Path, arguments: list[str], main: str, others: list[str]
) -> None:
    call("eval", *one_image, "compare=false", *arguments)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["protocol"] == main
    assert list(found.get("protocols", {})) == others


def test_a_panel_without_leaves_is_one_row(call, one_image: list[str], tmp_path: Path) -> None:
    sizes = []
    for compare in ("false", "auto"):
        finished = call("eval", *one_image, "save=panels", f"compare={compare}")
        assert finished.returncode == 0, finished.stderr
        [path] = (tmp_path / "out" / "panels").iterdir()
        sizes.append(Image.open(path).size)
    assert sizes[1][1] == 3 * sizes[0][1]  # the height: three rows for leaves, weights and differences


def test_the_worst_image_is_named(call, test_list: Path) -> None:
    finished = call("eval", f"ckpt={GOLDEN / 'official.pkl'}", f'data.test_list="{test_list}"', "trainer=cpu")
    worst = finished.stdout.split("\nworst")[1].splitlines()[1:3]
    assert [line.split()[0] for line in worst] == ["china_LR4.png", "astronaut_LR4.png"]
    assert float(worst[0].split()[1]) == pytest.approx(EXPECTED["images"]["china"]["psnr"], abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["130MB", "auto"])
def test_a_small_memory_changes_no_score(call, one_image: list[str], tmp_path: Path, memory: str) -> None:
    finished = call("eval", *one_image, f"inference.memory={memory}", "inference.mode=strips")
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["mean"]["psnr"] == pytest.approx(EXPECTED["images"]["china"]["psnr"], abs=1e-3)


@pytest.mark.slow
def test_the_self_ensemble_is_better(call, one_image: list[str], tmp_path: Path) -> None:
    call("eval", *one_image, "inference.self_ensemble=true", "compare=false")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["mean"]["psnr"] > EXPECTED["images"]["china"]["psnr"] + 0.005


@pytest.mark.slow
def test_lpips_is_added_on_request(call, one_image: list[str], tmp_path: Path, monkeypatch) -> None:
    torch.manual_seed(0)
    backbone = torchvision.models.alexnet(weights=None)  # the real weights take a download
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: backbone)
    finished = call("eval", *one_image, "iqa=lpips")
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 < found["images"][0]["lpips"] == found["mean"]["lpips"]
    assert found["methods"]["bicubic"]["lpips"] not in (None, found["mean"]["lpips"])
    assert "LPIPS" in finished.stdout


def test_lpips_without_its_weights_ends_before_the_evaluation(call, one_image: list[str], tmp_path: Path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no way out")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    finished = call("eval", *one_image, "iqa=lpips")
    assert finished.returncode == 1
    place = tmp_path / "cache" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert f"alexnet-owt-7be5be79.pth at {place}" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out" / "metrics.json").exists()


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
        ([f"ckpt={GOLDEN / 'expected.json'}", f"data.test_list={Path(__file__)}"], "refused, nothing of it was run"),
    ],
)
def test_errors_end_in_one_message(call, arguments: list[str], message: str) -> None:
    finished = call("eval", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_an_unknown_protocol_and_image_kind_are_named(call, test_list: Path) -> None:
    known = [f"ckpt={GOLDEN / 'official.pkl'}", f'data.test_list="{test_list}"']
    assert ": must be of d2csr, cdc, y, realsr, rgb, got" in call("eval", *known, "protocols=ycbcr").stderr
    assert ": must be of d2csr, cdc, y, realsr, rgb, got" in call("eval", *known, "protocols=[d2csr,ycbcr]").stderr
    assert "must be of sr, panels" in call("eval", *known, "save=video").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["protocols=[y,d2csr,3]"], "protocols: must be of d2csr, cdc, y, realsr, rgb, got y, d2csr, 3"),
        (["protocols=[]"], "protocols: must be of d2csr, cdc, y, realsr, rgb, got nothing"),
        (["protocol=y"], "error: protocol: this key is now protocols=[…]."),
        (["+protocol=y"], "error: protocol: this key is now protocols=[…]"),
        (["lpips=true"], "error: lpips: this key is now iqa=[lpips]."),
        (["compare=maybe"], "compare: must be one of auto, True, False, got 'maybe'"),
        (["inference.memory=lots"], "memory: must be auto, or a number with its unit such as 4GB"),
        (["inference.memory=1MB"], "even in the smallest tiles"),
        (["inference.precision=8"], "precision: must be one of 32, tf32, bf16, 16"),
        (["+trainer.limit_test_batches=1"], "trainer.limit_test_batches: every test image is scored"),
        (["+trainer.fast_dev_run=true"], "trainer.limit_test_batches: every test image is scored"),
        (["+data.foo=1"], "data.foo: no such key"),
    ],
)
def test_an_impossible_setting_is_named(call, one_image: list[str], arguments: list[str], message: str) -> None:
    finished = call("eval", *one_image, *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_checkpoint_of_another_scale_than_the_list_is_named(call, test_list: Path) -> None:
    checkpoint = GOLDEN.parent / "net-x2-f16-b1.pkl"
    finished = call("eval", f"ckpt={checkpoint}", f'data.test_list="{test_list}"')
    assert finished.returncode == 1
    assert "these do not fit the scale 2" in finished.stderr
    assert "or evaluate a checkpoint of scale 4\n" in finished.stderr
    assert "golden pairs.txt:1" in finished.stderr
    assert "golden pairs.txt:2" in finished.stderr


@pytest.mark.slow
def test_a_full_traceback_is_shown_on_request(run) -> None:
    finished = run("eval", "ckpt=nowhere.ckpt", HYDRA_FULL_ERROR="1")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr


@pytest.fixture
def checkpoint(tmp_path: Path, random_model) -> Callable[..., Path]:
    """Return a function that writes a small checkpoint of scale 4 with a description of its data."""

    def write(**data: Any) -> Path:
        save_model(tmp_path / "small.ckpt", random_model(4), {"name": "pairs", "scale": 4, **data})
        return tmp_path / "small.ckpt"

    return write


@pytest.mark.slow
def test_the_list_from_a_checkpoint_is_named(call, checkpoint, test_list: Path) -> None:
    path = checkpoint(test_list=str(test_list))
    finished = call("eval", f"ckpt={path}", "data.num_workers=0", "compare=false", "trainer=cpu")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(f"From the checkpoint: data.test_list={test_list}\n")
    named = call("eval", f"ckpt={path}", f'data.test_list="{test_list}"', "data.num_workers=0", "trainer=cpu")
    assert "From the checkpoint" not in named.stdout


def test_only_paths_are_taken_from_a_checkpoint(call, checkpoint, test_list: Path, tmp_path: Path, monkeypatch) -> None:
    given: list[dict[str, Any]] = []

    class Recording(PairDataModule):
        def __init__(self, **settings: Any) -> None:
            given.append(settings)
            super().__init__(**settings)

    monkeypatch.setattr("d2csr.data.datamodule.PairDataModule", Recording)
    hostile = {"cache_dir": str(tmp_path / "hostile"), "cache": "disk", "num_workers": 400, "batch_size": 10**9}
    path = checkpoint(test_list=str(test_list), on_error="skip", seed=1, **hostile)
    finished = call("eval", f"ckpt={path}", "data.num_workers=0", "compare=false", "trainer=cpu")
    assert finished.returncode == 0, finished.stderr
    assert given == [
        {"scale": 4, "name": "pairs", "test_list": str(test_list), "num_workers": 0, "on_error": "raise"},
    ]
    assert not (tmp_path / "hostile").exists()
    call("eval", f"ckpt={path}", "data.name=mine", "data.num_workers=0", "compare=false", "trainer=cpu")
    assert given[1]["name"] == "mine"


@pytest.mark.parametrize(
    ("data", "message"),
    mostly_slow(
        [
            ({"test_list": "/dev/zero"}, "/dev/zero: not a regular file"),
            ({"test_list": "fifo"}, "fifo: not a regular file"),
            ({"train_list": "fifo"}, "fifo: not a regular file"),
            ({"test_list": "."}, "not a regular file"),
            ({"test_list": "large"}, "large: has 70,000,000 bytes, above the limit of"),
            ({"test_list": "gone.txt"}, "gone.txt"),
            ({"test_list": ["a", "b"]}, "data.test_list"),
            ({"test_list": 3}, "its data.test_list is not a path; add data.test_list=LIST"),
            ({"test_list": "a\0b"}, "its data.test_list is not a path"),
            ({"root": "r" * 5000}, "its data.root is not a path"),
            ({"root": "."}, "error: "),
            ({}, "does not say which pairs to test on; add data.test_list=LIST"),
        ]
    ),
)
def test_hostile_paths_of_a_checkpoint_end_in_one_message(call, checkpoint, tmp_path: Path, data, message) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(70_000_000)
    data = {
        key: str(tmp_path / value) if isinstance(value, str) and len(value) < 50 else value
        for key, value in data.items()
    }
    finished = call("eval", f"ckpt={checkpoint(**data)}", "trainer=cpu")
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_control_characters_of_a_checkpoint_do_not_reach_the_terminal(call, checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred.txt"
    path.write_text(f"{GOLDEN / 'china_LR4.png'} {GOLDEN / 'china_HR.png'}\n")
    finished = call("eval", f"ckpt={checkpoint(test_list=str(path))}", "data.num_workers=0", "compare=false")
    assert finished.returncode == 0, finished.stderr
    assert "\\x1b[31mred.txt" in finished.stdout
    assert "\x1b" not in finished.stdout


def test_weights_that_are_not_finite_are_refused(call, random_model, test_list: Path, tmp_path: Path) -> None:
    model = random_model(4)
    name, parameter = list(model.named_parameters())[5]
    parameter.data.view(-1)[0] = float("nan")
    save_model(tmp_path / "nan.ckpt", model)
    finished = call("eval", "ckpt=nan.ckpt", f'data.test_list="{test_list}"', "trainer=cpu")
    assert finished.returncode == 1
    assert name in finished.stderr
    assert "NaN" in finished.stderr
    assert "Traceback" not in finished.stderr
