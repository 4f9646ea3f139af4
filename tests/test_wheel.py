"""Commands of a wheel that is built from the sdist and installed without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

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
