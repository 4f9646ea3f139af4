"""Pairs for validation and test from HR images: LR images of a fixed degradation as PNG files, and their lists."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from d2csr.data.check import raise_or_skip
from d2csr.data.images import read_rgb
from d2csr.data.lists import ImagePair, write_list
from d2csr.data.random_degradation import RandomDegradation
from d2csr.errors import DataError
from d2csr.files import atomic_write, cores, each, require_regular_file

log = logging.getLogger(__name__)

_FORMAT = 1  # part of the folder's name: changes with the results of the degradation


@dataclass(frozen=True)
class DegradedPairs:
    """HR images and their LR images, which are written to a folder of their own.

    The degradation of an image follows from its name and the settings alone, not from the seed of a training: runs of
    different seeds are validated on the same pairs.

    Args:
        images: the HR images, at least one.
        folder: the folder that holds them.
        output: the pairs are written to a folder in it, which is named by a hash of the settings and of the names,
            sizes and times of change of the images: other settings do not change the pairs of an earlier training.
        split: ``val`` or ``test``.
        scale: s.
        degradation: drawn once for each image.
    """

    images: Sequence[Path]
    folder: Path
    output: Path
    split: str
    scale: int
    degradation: RandomDegradation

    @property
    def list_file(self) -> Path:
        """The list of the pairs."""
        states = [require_regular_file(path) for path in self.images]
        files = [(name, s.st_size, s.st_mtime_ns) for name, s in zip(self._names(), states, strict=True)]
        content = json.dumps([_FORMAT, self.scale, self.degradation.settings, files])
        digest = hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:12]
        return self.output / f"x{self.scale}_{digest}" / f"degraded_x{self.scale}_{self.split}.txt"

    def write(self, on_error: str) -> None:
        """Write the LR images and, at the end, the list; existing files are kept.

        Args:
            on_error: with images that cannot be used, ``raise`` an error or ``skip`` them; all are named.

        Raises:
            DataError: an image cannot be used, or a file cannot be written.
        """
        path = self.list_file
        if path.is_file():
            return
        log.info("Degrading %d HR images for %s into %s.", len(self.images), self.split, path.parent)
        named = list(zip(self.images, self._names(), strict=True))
        count = Counter(Path(name).with_suffix("") for _, name in named)

        def make(image: tuple[Path, str]) -> ImagePair:
            hr, name = image
            stem = Path(name).with_suffix("")
            own = hr.suffix.replace(".", "_") if count[stem] > 1 else ""  # a_jpg_LR4.png if there is a.png too
            lr = Path(self.split, f"{stem}{own}_LR{self.scale}.png")
            if not (path.parent / lr).is_file():
                self._write_lr(hr, path.parent / lr, name)
            return ImagePair(lr=lr, hr=hr.absolute())

        try:
            results = each(make, named, label="degrading images", threads=min(cores(), 4))
            problems = {number: str(result) for number, result in enumerate(results) if isinstance(result, DataError)}
            raise_or_skip(problems, len(self.images), on_error, what="HR images")
            write_list(path, [pair for pair in results if isinstance(pair, ImagePair)])
        except OSError as error:
            raise DataError(
                f"{path.parent}: degraded images cannot be written there ({error.strerror or error}). Name another "
                "folder by data.list_dir=FOLDER."
            ) from None

    def _write_lr(self, hr: Path, lr: Path, name: str) -> None:
        image = read_rgb(hr)
        if min(image.shape[:2]) < self.scale:
            raise DataError(f"{hr}: {image.shape[1]}×{image.shape[0]} pixels are less than one LR pixel.")
        seed = zlib.crc32(name.encode(errors="surrogateescape"))
        small = self.degradation(image, self.scale, np.random.default_rng(seed))
        with atomic_write(lr) as partial:
            Image.fromarray(small).save(partial, format="PNG")

    def _names(self) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path in self.images]
