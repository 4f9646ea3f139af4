"""The built-in photographs of the demo, and their LR/HR pairs as PNG files and lists, made at first use.

Scores on nine photographs say nothing about the method. Authors and licences are in ``photographs/SOURCES.md``.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from d2csr import __version__
from d2csr.checks import SCALES, one_of
from d2csr.data.datamodule import PairDataModule
from d2csr.data.degradation import degrade
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair, read_list, write_list
from d2csr.errors import ConfigError, DataError
from d2csr.files import atomic_write

FOLDER = Path(__file__).parent / "photographs"

#: Names by split. No scene is in two splits. The test photographs have the most detail: a face and lettering, tiles and
#: foliage, petals.
PHOTOS = {
    "train": ("chelsea", "coffee", "observatory", "raccoon", "rocket"),
    "val": ("hopper",),
    "test": ("astronaut", "china", "flower"),
}


def read_photo(name: str) -> np.ndarray:
    """Decode a built-in photograph to H×W×3, uint8, sRGB."""
    return read_rgb(FOLDER / f"{name}.jpg")


def write_pairs(folder: str | Path, scale: int) -> dict[str, Path]:
    """Write the pairs of all photographs and their lists into a folder, and return the list of each split.

    The files are ``x{scale}/{split}/{name}_HR.png``, ``x{scale}/{split}/{name}_LR{scale}.png`` and
    ``demo_x{scale}_{split}.txt``, with relative paths. ``x{scale}/made_with.txt``, written last, holds the version of
    d2csr: another call of the same version writes nothing. Several processes may call this at once.

    Raises:
        ConfigError: ``scale`` is not supported.
        DataError: the folder cannot be written to.
    """
    one_of("scale", scale, SCALES)
    folder = Path(folder)
    lists = {split: folder / f"demo_x{scale}_{split}.txt" for split in PHOTOS}
    stamp = folder / f"x{scale}" / "made_with.txt"
    try:
        with suppress(FileNotFoundError, DataError):
            images = [path for file in lists.values() for pair in read_list(file) for path in (pair.lr, pair.hr)]
            if stamp.read_text(encoding="utf-8") == __version__ and all(path.is_file() for path in images):
                return lists
        # Removed first: an interrupted call leaves a mixture of old and new files, which must not count as complete.
        stamp.unlink(missing_ok=True)
        for split, path in lists.items():
            write_list(path, [_write_pair(folder, split, name, scale) for name in PHOTOS[split]])
        with atomic_write(stamp) as partial:
            partial.write_text(__version__, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: the demo's pairs cannot be written there ({error}). Name another folder.") from None
    return lists


def _write_pair(folder: Path, split: str, name: str, scale: int) -> ImagePair:
    """Write the images of a photograph, and return their paths relative to the folder."""
    place = Path(f"x{scale}") / split
    pair = ImagePair(lr=place / f"{name}_LR{scale}.png", hr=place / f"{name}_HR.png")
    image = read_photo(name)
    height, width = (side // scale * scale for side in image.shape[:2])
    seed = zlib.crc32(f"0 {scale} {name}".encode())  # another photograph does not change this one
    for path, pixels in ((pair.hr, image[:height, :width]), (pair.lr, degrade(image, scale, seed=seed))):
        with atomic_write(folder / path) as partial:
            Image.fromarray(pixels).save(partial, format="PNG")
    return pair


class DemoDataModule(PairDataModule):
    """The pairs of the built-in photographs, written to ``list_dir``.

    Raises:
        ConfigError: ``root`` is given.
    """

    def __init__(self, *, name: str = "demo", root: str | None = None, **settings: Any) -> None:
        super().__init__(name=name, **settings)
        if root is not None:
            raise ConfigError("root: the demo uses its own photographs. For a folder of your own, add data=pairs.")

    def prepare_data(self) -> None:
        """Write the pairs if they are missing."""
        write_pairs(self.splits.list_dir, self.scale)
