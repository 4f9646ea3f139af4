"""Commands of a wheel that is built from the sdist and installed without the checkout."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def finished(*arguments: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    finished(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=dist)  # the sdist, and from it the wheel
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_dir(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone; what it depends on is lent from here, not downloaded once more."""
    venv = tmp_path_factory.mktemp("venv")
    finished(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv)
    python = venv / "bin" / "python"
    finished(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel, cwd=venv)
    site = Path(finished(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=venv).strip())
    # A plain path, so that the .pth file of an editable install, which leads to the checkout, is not read there.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = finished(python, "-c", "import d2csr; print(d2csr.__file__)", cwd=venv).strip()
    assert home.startswith(str(site))
    return venv / "bin"


def test_the_wheel_holds_configuration_and_photographs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"d2csr/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    photographs = {f"d2csr/demo/photographs/{path.name}" for path in (ROOT / "src/d2csr/demo/photographs").glob("*.*")}
    page = {f"d2csr/html_report/templates/{name}" for name in ("index.html.j2", "style.css", "report.js")}
    card = {"d2csr/hub/model_card.md"}
    assert shipped | photographs | page | card <= names
    assert not [name for name in names if name.startswith(("tests/", "conf/"))]


def test_an_experiment_composes_in_an_unrelated_folder(bin_dir: Path, tmp_path: Path) -> None:
    printed = finished(bin_dir / "d2csr-train", "+experiment=realsr_x4", "--cfg", "job", cwd=tmp_path)
    assert "name: realsr" in printed
    assert "scale: 4" in printed


def test_the_demo_runs_in_an_unrelated_folder(bin_dir: Path, tmp_path: Path) -> None:
    train = ["+experiment=demo", "hydra.run.dir=run", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"]
    small = ["trainer.limit_train_batches=2", "model.network.features=16", "model.network.fusion_features=4"]
    finished(bin_dir / "d2csr-train", *train, *small, cwd=tmp_path)
    table = finished(bin_dir / "d2csr-eval", "ckpt=run", "hydra.run.dir=eval", cwd=tmp_path)
    assert "×2, 3 images, protocol d2csr" in table
    finished(
        bin_dir / "d2csr-upscale", "ckpt=run", "input=demo_pairs/x2/test", "output=results", cwd=tmp_path
    )  # HR photographs among them: any image will do
    assert len(list((tmp_path / "results").glob("*.png"))) == 6


MY_CODE = """
from torch import nn

from d2csr.data.layouts import Layout, register_layout
from d2csr.models import register_body

register_layout(
    "mine",
    Layout(
        folders=(("{split}", "sharp", "small"),),
        names=r"(scene\\d+)_(?:tele|wide)",
        example="scene1_tele.png with scene1_wide.png",
        scales=(2,),
    ),
)


@register_body("mine")
class Mine(nn.Conv2d):
    def __init__(self, features: int) -> None:
        super().__init__(features, features, 5, padding=2)
"""

MY_EXPERIMENT = """
# @package _global_
defaults:
  - override /data: pairs
  - override /model/scheduler: cosine
  - _self_
scale: 2
optimization: joint
plugins: [my_code]
data: {name: mine, root: photographs, patch_size: 8, batch_size: 2, num_workers: 0}
model:
  network: {features: 8, fusion_features: 8, body: {name: mine}}
  optimizer: {_target_: torch.optim.AdamW}
  scheduler: {warmup: 1}
  losses:
    reconstruction: {_target_: torch.nn.L1Loss}
    fusion: {_target_: d2csr.losses.Charbonnier}
trainer: {accelerator: cpu, max_epochs: 9, check_val_every_n_epoch: 1, log_every_n_steps: 1}
callbacks:
  stop: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/psnr, mode: max, patience: 1, min_delta: 99}
  lr: {_target_: pytorch_lightning.callbacks.LearningRateMonitor}
"""


def test_body_losses_optimizer_callbacks_and_data_of_ones_own(bin_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "my_code.py").write_text(MY_CODE)
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "mine.yaml").write_text(MY_EXPERIMENT.lstrip())
    for kind in ("train/sharp", "train/small", "test/sharp", "test/small"):
        folder = tmp_path / "photographs" / kind
        folder.mkdir(parents=True)
        ending, size = ("tele", (48, 32)) if folder.name == "sharp" else ("wide", (24, 16))
        for number in range(4):
            Image.effect_noise(size, 60).convert("RGB").save(folder / f"scene{number}_{ending}.png")
    train = ["--config-dir=my_conf", "+experiment=mine", "hydra.run.dir=run"]
    assert "Trained 4 steps" in finished(bin_dir / "d2csr-train", *train, cwd=tmp_path)  # two epochs: it stops early
    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        rates = {float(row["lr-AdamW"]) for row in csv.DictReader(file) if row["lr-AdamW"]}
    assert sorted(rates) == pytest.approx([5e-5, 1e-4])  # one epoch of warm-up
    resumed = finished(bin_dir / "d2csr-train", *train, "resume=run", "callbacks.stop.patience=2", cwd=tmp_path)
    assert "Trained 6 steps" in resumed
    table = finished(bin_dir / "d2csr-eval", "ckpt=run", "plugins=[my_code]", "hydra.run.dir=eval", cwd=tmp_path)
    assert "×2, 4 images, protocol d2csr" in table
    strips = ["input=photographs/test/small", "output=results", "plugins=[my_code]", "inference.mode=strips"]
    finished(bin_dir / "d2csr-upscale", "ckpt=run", *strips, cwd=tmp_path)
    assert len(list((tmp_path / "results").glob("*.png"))) == 4
    code = "import d2csr; print(d2csr.load_model('run', plugins=['my_code']).settings['body'])"
    assert "'mine'" in finished(bin_dir / "python", "-c", code, cwd=tmp_path)
