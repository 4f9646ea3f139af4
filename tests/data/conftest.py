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


LR, HR = 1, 2


class Tree:
    """A data set of tiny images whose pixels encode their scene, and whether they are LR or HR."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pair(self, hr: str, lr: str, scene: int, scale: int = 4, size: tuple[int, int] = (4, 3)) -> None:
        self.image(hr, scene, HR, (size[0] * scale, size[1] * scale))
        self.image(lr, scene, LR, size)

    def image(self, name: str, scene: int, kind: int, size: tuple[int, int]) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (scene, kind, 0)).save(path)

    @staticmethod
    def scenes(pairs: list[ImagePair]) -> list[int]:
        """The scenes of the pairs in their order, once it is certain that each pair shows one, LR and HR in place."""
        found = []
        for pair in pairs:
            (lr_scene, lr_kind, _), (hr_scene, hr_kind, _) = pixel(pair.lr), pixel(pair.hr)
            assert (lr_kind, hr_kind) == (LR, HR), f"LR and HR are not in place: {pair}"
            assert lr_scene == hr_scene, f"not of one scene: {pair}"
            found.append(hr_scene)
        return found


def pixel(path: Path) -> tuple[int, int, int]:
    with Image.open(path) as image:
        red, green, blue = image.convert("RGB").getpixel((0, 0))
    return red, green, blue


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "data")
