"""Built-in photographs of the demo: names, splits and files.

Scores on nine photographs say nothing about the method. Authors and licences are in ``photographs/SOURCES.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "photographs"

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Photo:
    """One built-in photograph, by the stem of its file, and its split: ``train``, ``val`` or ``test``."""

    name: str
    split: str

    @property
    def path(self) -> Path:
        """Path of the JPEG file."""
        return FOLDER / f"{self.name}.jpg"

    def read(self) -> np.ndarray:
        """Decode the file to ``(H, W, 3)`` uint8, sRGB."""
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"))


# No scene is in two splits. The test photographs have the most detail: a face and lettering, tiles and foliage, petals.
PHOTOS = (
    Photo("chelsea", "train"),
    Photo("coffee", "train"),
    Photo("observatory", "train"),
    Photo("raccoon", "train"),
    Photo("rocket", "train"),
    Photo("hopper", "val"),
    Photo("astronaut", "test"),
    Photo("china", "test"),
    Photo("flower", "test"),
)


def photos_of(split: str) -> tuple[Photo, ...]:
    """Return the photographs of one of :data:`SPLITS`, in their fixed order."""
    return tuple(photo for photo in PHOTOS if photo.split == split)
