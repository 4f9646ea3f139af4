"""Pairs of small noise images on disk, for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_pairs(folder: Path, count: int, height: int, width: int, list_name: str = "train.txt") -> Path:
    """Write ``lr0.png`` … and HR images of twice their size, by repeated pixels, and their list; return its path."""
    pixels = np.random.default_rng(0)
    for number in range(count):
        lr = pixels.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(lr).save(folder / f"lr{number}.png")
        Image.fromarray(lr.repeat(2, axis=0).repeat(2, axis=1)).save(folder / f"hr{number}.png")
    return write_list_of(folder / list_name, range(count))


def write_list_of(path: Path, numbers: Iterable[int]) -> Path:
    """Write a list of some of these pairs, and return its path."""
    path.write_text("".join(f"lr{number}.png hr{number}.png\n" for number in numbers))
    return path
