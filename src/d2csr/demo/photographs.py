"""The built-in photographs of the demo: their names, which split each belongs to, and where they are.

They make it possible to train, validate and test without a download. Nine photographs are no data set: what is learnt
from them shows that everything works, and says nothing about the method. Authors and licences are in
``photographs/SOURCES.md``.
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
    """One built-in photograph.

    Attributes:
        name: what it is called, the stem of its file.
        split: ``train``, ``val`` or ``test``. No scene is in two splits.
    """

    name: str
    split: str

    @property
    def path(self) -> Path:
        """The JPEG file."""
        return FOLDER / f"{self.name}.jpg"

    def read(self) -> np.ndarray:
        """Decode the file to ``(H, W, 3)`` uint8, RGB as sRGB encodes it, 0 to 255."""
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"))


# The test photographs are the ones with the most to restore: a face and lettering, tiles and foliage, fine petals.
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
    """The photographs of one of :data:`SPLITS`, in their fixed order."""
    return tuple(photo for photo in PHOTOS if photo.split == split)
