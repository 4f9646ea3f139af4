from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
LEAVES = ("11", "12", "21", "22")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the commands remember out of the user's folder for caches."""
    os.environ["D2CSR_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


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
        ("eval", "ckpt=run", "hydra.run.dir=run/eval", "save=[sr,panels]"),
    ):
        command = [sys.executable, "-m", f"d2csr.commands.{name}", *arguments]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return home / "run"
