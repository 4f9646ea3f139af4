from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import workers
from d2csr.callbacks import TrainingCurves
from d2csr.data.layouts import LAYOUTS
from d2csr.models import D2CSR
from d2csr.models.bodies import BODIES
from fake_hub import FakeHub
from shared_pairs import SHARED, share_demo_pairs
from warm_python import warm_python
from yaml_cache import keep_parsed_yaml

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GOLDEN = Path(__file__).parent / "golden"
LEAVES = ("11", "12", "21", "22")
ModelFactory = Callable[..., D2CSR]

# The workers share the cores, and tiny networks gain nothing by a second thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
keep_parsed_yaml()
share_demo_pairs()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return workers.count(config.args, config.option.keyword)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.UnitScheduling:
    return workers.UnitScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = workers.in_order(items)


def pytest_collection_finish() -> None:
    """Exempt the imported modules from garbage collection, a fifth of the time of tests that compose settings."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the commands remember out of the user's folder for caches, and the pairs of the demo for all tests."""
    os.environ["D2CSR_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    os.environ[SHARED] = str(tmp_path_factory.mktemp("demo-pairs"))


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A program that is called as ``python`` is, and has imported torch and Lightning.

    Its trainings draw no curves.
    """
    if not sys.platform.startswith("linux"):
        yield sys.executable
        return
    with warm_python(tmp_path_factory.mktemp("python")) as program:
        yield program


@pytest.fixture(autouse=True)
def restored_registries() -> Iterator[None]:
    """Take back what a test registers, so that no other test sees it."""
    before = [(registry, dict(registry)) for registry in (BODIES, LAYOUTS)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the picture at the end of a training: it takes two seconds of a test that trains in less."""
    monkeypatch.setattr(TrainingCurves, "on_fit_end", lambda *_: None)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of what the official implementation computed."""
    return GOLDEN


@pytest.fixture(scope="session")
def golden_arrays() -> Callable[[str], dict[str, Tensor]]:
    """Read an npz file of the golden folder, images turned from its BGR to RGB."""

    def read(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / name) as arrays:
            return {key: to_rgb(torch.from_numpy(arrays[key])) for key in arrays}

    return read


@pytest.fixture(scope="session")
def stacked() -> Callable[[dict[str, Tensor], str], Tensor]:
    """Stack the arrays of the four leaves, ``pred11`` … ``pred22``, to N×4×3×H×W."""
    return lambda arrays, prefix: torch.stack([arrays[prefix + leaf] for leaf in LEAVES], dim=1)


@pytest.fixture(scope="session")
def off_by() -> Callable[[Tensor, Tensor], float]:
    """The largest difference of two arrays, as a share of the second one's range."""

    def difference(actual: Tensor, expected: Tensor) -> float:
        assert actual.shape == expected.shape
        spread = expected.max() - expected.min()
        return ((actual - expected).abs().max() / spread).item()

    return difference


def to_rgb(array: Tensor) -> Tensor:
    return array.flip(-3) if array.ndim >= 4 and array.shape[-3] == 3 else array


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and evaluate the demo once, by the commands of ``make demo``, and return its run folder."""
    home = tmp_path_factory.mktemp("demo")
    for name, *arguments in (
        ("train", "+experiment=demo", "hydra.run.dir=run", "data.list_dir=run/pairs"),
        ("eval", "ckpt=run", "hydra.run.dir=run/eval", "save=[sr,panels]", "report=true"),
    ):
        command = [sys.executable, "-m", f"d2csr.commands.{name}", *arguments]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return home / "run"


@pytest.fixture(scope="session")
def executed_notebooks(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Execute each notebook once; return the folder of the results, and of a folder for the files of each."""
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("notebooks")
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        home = folder / path.stem
        home.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("D2CSR_CHECKPOINT", str(demo_run))
            patch.setenv("TMPDIR", str(home))
            patch.setenv("OMP_NUM_THREADS", "1")
            NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(home)}}).execute()
        nbformat.write(notebook, folder / path.name)
    return folder


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Nothing that Chromium does by itself may look like a request of the page.
CHROMIUM_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the installed Chromium without a window.

    Not once a session: Playwright leaves an event loop running in this thread, and other tests start one of their own.
    """
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_OPTIONS))
        yield started
        started.close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A stand-in of the Hugging Face hub, which huggingface_hub uses with an empty cache and without a token."""
    from huggingface_hub import constants

    server = FakeHub()
    # The environment variables behind these are read once, at the import.
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.close()


TINY = {"scale": 2, "features": 16, "groups": 1, "blocks": 1, "branching": [2, 2], "fusion_features": 8}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The settings of a network that trains in no time."""
    return dict(TINY)


@pytest.fixture
def batches() -> list[dict[str, Tensor]]:
    """Three batches of two images for a network of scale 2."""
    generator = torch.Generator().manual_seed(0)
    return [
        {"lr": torch.rand(2, 3, 6, 6, generator=generator), "hr": torch.rand(2, 3, 12, 12, generator=generator)}
        for _ in range(3)
    ]


@pytest.fixture
def trainer() -> Callable[..., pl.Trainer]:
    """Build a silent trainer on the CPU."""

    def build(**settings: Any) -> pl.Trainer:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return pl.Trainer(accelerator="cpu", devices=1, **{"max_epochs": 1, **quiet, **settings})

    return build


@pytest.fixture
def fit(trainer) -> Callable[..., pl.Trainer]:
    """Train a task on batches, in their order, in each epoch."""

    def train(task: pl.LightningModule, batches: list[dict[str, Tensor]], **settings: Any) -> pl.Trainer:
        made = trainer(**settings)
        made.fit(task, DataLoader(batches, batch_size=None))
        return made

    return train


@pytest.fixture
def copied() -> Callable[[torch.nn.Module], dict[str, Tensor]]:
    """Take a copy of a module's weights."""
    return lambda module: {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture
def random_model() -> ModelFactory:
    """Builds small models with weights far from the initial ones: nothing may hide behind zeros or symmetry."""

    def build(scale: int = 4, branching: Sequence[int] = (2, 2), features: int = 16, seed: int = 0) -> D2CSR:
        torch.manual_seed(seed)
        model = D2CSR(scale, features, branching, 24, {"name": "rcab", "groups": 2, "blocks": 2}).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0, 0.7 * fan_in**-0.5)
                else:
                    parameter.normal_(0, 0.1)
        return model

    return build


@pytest.fixture
def plain() -> Callable[[D2CSR, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The plain forward: fused image, predictions, weights."""

    def run(model: D2CSR, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            predictions = model.divergence(lr)
            sr, weights = model.convergence(predictions)
            torch.testing.assert_close(model(lr), sr, rtol=0, atol=0)
        return sr, predictions, weights

    return run


@pytest.fixture
def difference() -> Callable[[Tensor, Tensor], float]:
    """The largest absolute difference, as a share of the range of the second."""

    def measure(actual: Tensor, expected: Tensor) -> float:
        assert actual.shape == expected.shape
        spread = (expected.max() - expected.min()).clamp(min=1e-3)
        return ((actual - expected).abs().max() / spread).item()

    return measure
