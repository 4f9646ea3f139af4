"""``d2csr-eval``: scored values, and metrics other than PSNR and SSIM."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchmetrics
from PIL import Image

from d2csr.metrics import PROTOCOLS
from reference_scores import skimage_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "eval-x4"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """The arguments for an evaluation of one image into ``out``."""
    path = tmp_path / "one.txt"
    path.write_text(f"{GOLDEN / 'china_LR4.png'} {GOLDEN / 'china_HR.png'}\n")
    checkpoint = GOLDEN / "official.pkl"
    return [f"ckpt={checkpoint}", f"data.test_list={path}", "data.num_workers=0", "hydra.run.dir=out", "trainer=cpu"]


def found(folder: Path) -> Any:
    return json.loads((folder / "out" / "metrics.json").read_text())


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"), dtype=float) / 255


def test_eight_bit_scores_are_those_of_the_saved_image(call, arguments, tmp_path: Path) -> None:
    names = list(PROTOCOLS)
    finished = call("eval", *arguments, f"protocols={','.join(names)}", "eight_bit=true", "save=sr", "compare=false")
    assert finished.returncode == 0, finished.stderr
    sr = pixels(tmp_path / "out" / "sr" / "china_LR4.png")
    hr = pixels(GOLDEN / "china_HR.png")[: sr.shape[0], : sr.shape[1]]
    file = found(tmp_path)
    for name, scores in {names[0]: file, **file["protocols"]}.items():
        expected = skimage_scores(sr, hr, 4, name)
        assert (scores["mean"]["psnr"], scores["mean"]["ssim"]) == pytest.approx(expected, abs=1e-6)
        assert scores["scored_on"] == "8-bit"
    assert f"protocol {names[0]} (8-bit)" in finished.stdout


@pytest.mark.slow
def test_eight_bit_holds_for_every_method(call, arguments, tmp_path: Path) -> None:
    lr = Image.open(GOLDEN / "china_LR4.png").convert("RGB")
    bicubic = np.asarray(lr.resize((4 * lr.width, 4 * lr.height), Image.Resampling.BICUBIC), dtype=float) / 255
    hr = pixels(GOLDEN / "china_HR.png")[: bicubic.shape[0], : bicubic.shape[1]]
    methods = {}
    for eight_bit in ("false", "true"):
        finished = call("eval", *arguments, "protocols=cdc,d2csr", f"eight_bit={eight_bit}")
        assert finished.returncode == 0, finished.stderr
        methods[eight_bit] = found(tmp_path)["methods"]
    assert methods["false"].keys() == methods["true"].keys()
    assert all(methods["false"][name]["psnr"] != methods["true"][name]["psnr"] for name in methods["true"])
    # Pillow rounds to 8 bits after each direction.
    assert methods["true"]["bicubic"]["psnr"] == pytest.approx(skimage_scores(bicubic, hr, 4, "cdc")[0], abs=2e-3)


def test_tables_and_file_say_what_was_scored(call, arguments, tmp_path: Path) -> None:
    finished = call("eval", *arguments, "protocols=cdc,d2csr,y", "compare=false")
    assert "protocol cdc (float, not clamped)\n" in finished.stdout
    for name in ("d2csr", "y"):
        assert f"protocol {name} ({PROTOCOLS[name].scored_on})\n" in finished.stdout
    scores = found(tmp_path)
    assert scores["scored_on"] == "float, not clamped"
    others = {name: protocol["scored_on"] for name, protocol in scores["protocols"].items()}
    assert others == {"d2csr": "float, PSNR clamped, SSIM not clamped", "y": "8-bit"}


class Contrast(torch.nn.Module):
    """A metric as pyiqa makes them, without reference."""

    metric_mode, lower_better = "NR", True

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.std(dim=(1, 2, 3))


@pytest.mark.slow
def test_metrics_by_name_are_in_table_and_file(call, arguments, tmp_path: Path, monkeypatch) -> None:
    stand_in = types.SimpleNamespace(
        list_models=lambda: ["niqe"], create_metric=lambda name, device: Contrast(), __version__="9.8.7"
    )
    monkeypatch.setitem(sys.modules, "pyiqa", stand_in)
    finished = call("eval", *arguments, "iqa=vif,niqe", "save=sr", "eight_bit=true")
    assert finished.returncode == 0, finished.stderr
    scores = found(tmp_path)
    assert list(scores["mean"]) == ["psnr", "ssim", "vif", "niqe"]
    assert scores["metrics"] == {
        "vif": {"library": f"torchmetrics {torchmetrics.__version__}", "lower_is_better": False},
        "niqe": {"library": "pyiqa 9.8.7", "lower_is_better": True},
    }
    assert scores["mean"]["niqe"] == pytest.approx(pixels(tmp_path / "out" / "sr" / "china_LR4.png").std(), rel=1e-4)
    assert 0 < scores["methods"]["bicubic"]["vif"] < scores["methods"]["fusion"]["vif"] < 1
    header = next(line for line in finished.stdout.splitlines() if "PSNR" in line)
    assert header.split()[-3:] == ["VIF", "NIQE", "↓"]
    columns = header.index("NIQE ↓") + len("NIQE ↓"), header.index("VIF") + len("VIF")
    fusion = next(line for line in finished.stdout.splitlines() if line.startswith("fusion"))
    assert fusion[: columns[0]].split()[-1] == f"{scores['mean']['niqe']:.4f}"
    assert fusion[: columns[1]].split()[-1] == f"{scores['mean']['vif']:.4f}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["iqa=niqe"], "iqa: the weights of niqe cannot be downloaded or read (<urlopen error no way out>)"),
        (["iqa=[nique]"], "iqa: pyiqa has no metric 'nique'"),
        (["iqa=ssim"], "iqa: must be names such as niqe or dists, got 'ssim'"),
        (["iqa=3"], "iqa: must be names such as niqe or dists, got 3"),
        (["eight_bit=8"], "eight_bit: must be true or false, got 8"),
    ],
)
def test_impossible_settings_end_before_the_evaluation(
    call, arguments, tmp_path: Path, monkeypatch, settings: list[str], message: str
) -> None:
    def create_metric(name: str, device: str) -> None:
        raise URLError("no way out")

    stand_in = types.SimpleNamespace(list_models=lambda: ["niqe"], create_metric=create_metric)
    monkeypatch.setitem(sys.modules, "pyiqa", stand_in)
    finished = call("eval", *arguments, *settings)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize(("settings", "least"), [("protocols=y", 19), ("iqa=vif", 41)])
def test_an_image_too_small_for_a_metric_is_named(call, arguments, tmp_path: Path, settings: str, least: int) -> None:
    for name, side in (("lr", 4), ("hr", 16)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    (tmp_path / "one.txt").write_text("lr.png hr.png\n")
    finished = call("eval", *arguments, settings)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert f"{tmp_path / 'hr.png'}: " in finished.stderr
    assert f"at least {least} pixels a side, got 16×16" in finished.stderr
