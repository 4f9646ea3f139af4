"""HR images without LR: the files of a folder, and those that are held out for validation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from d2csr.checks import number
from d2csr.data.images import SUFFIXES
from d2csr.errors import DataError
from d2csr.files import require_folder


def require_hr_folder(folder: str | Path, key: str) -> Path:
    """Return a folder with ``~`` expanded; raise a DataError, which names the setting ``key``, if there is none."""
    return require_folder(folder, f"Name the folder of HR images by data.{key}=FOLDER.")


def find_images(folder: str | Path, key: str) -> list[Path]:
    """Return the images of a folder and its subfolders, ordered by path; hidden files and folders are skipped.

    Args:
        folder: the folder; ``~`` is expanded.
        key: the setting that names it, for messages.

    Raises:
        DataError: the folder is missing, cannot be read, or holds no image.
    """
    folder = require_hr_folder(folder, key)

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).")

    images = []
    for place, subfolders, names in os.walk(folder, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        images += [Path(place) / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not images:
        raise DataError(f"{folder}: holds no image ({', '.join(SUFFIXES)}). Name another folder by data.{key}=FOLDER.")
    return sorted(images)


def hold_out_images(images: Sequence[Path], folder: Path, share: float) -> tuple[list[Path], list[Path]]:
    """Return the training and the validation images; the choice follows from the paths below ``folder`` alone.

    Args:
        images: at least one.
        folder: the folder that holds them.
        share: of the images to validate on, above 0 and below 1, rounded to at least one image.

    Raises:
        ConfigError: the share is impossible.
        DataError: there is only one image.
    """
    number("val_share", share, above=0, below=1)
    if len(images) < 2:
        raise DataError(f"{folder}: holds one image; data.val_share={share:g} needs 2. Or name data.val_hr=FOLDER.")

    def digest(path: Path) -> bytes:
        return hashlib.sha256(name_below(path, folder).encode(errors="surrogateescape")).digest()

    count = min(max(1, round(share * len(images))), len(images) - 1)
    held_out = set(sorted(images, key=digest)[:count])
    return [path for path in images if path not in held_out], [path for path in images if path in held_out]


def name_below(path: Path, folder: Path) -> str:
    """Return the path below a folder, with ``/`` on every system."""
    return path.relative_to(folder).as_posix()
