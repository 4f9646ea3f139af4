from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
LEAVES = ("11", "12", "21", "22")


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
