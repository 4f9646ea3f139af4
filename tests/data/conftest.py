from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2csr.data.lists import ImagePair


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Make an H×W×3 image of noise."""

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def pair(tmp_path: Path, noise) -> Callable[..., ImagePair]:
    """Write a pair of images of these sizes, height × width, named in line ``number`` of a list."""

    def write(number: int, lr: tuple[int, int], hr: tuple[int, int]) -> ImagePair:
        paths = [tmp_path / f"{kind}{number}.png" for kind in ("lr", "hr")]
        for path, size in zip(paths, (lr, hr), strict=True):
            Image.fromarray(noise(*size, seed=number)).save(path)
        return ImagePair(*paths, f"list.txt:{number}")

    return write
