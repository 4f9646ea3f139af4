"""Image index: sizes and file states of checked images, kept on disk between runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d2csr.data.images import read_rgb, read_size
from d2csr.errors import DataError
from d2csr.files import atomic_write, cores, each, file_lock, require_regular_file

log = logging.getLogger(__name__)

_FORMAT = 2  # of the index; a file of another format is ignored
_MAX_BYTES = 2**30  # about 5 million images


@dataclass(frozen=True)
class ImageFile:
    """An image on disk, as it was when it was checked."""

    path: str  #: absolute
    stored: int  #: its size in bytes
    modified: int  #: its time of change in nanoseconds
    inode: int  #: the number of the file in its file system
    height: int  #: in pixels
    width: int  #: in pixels
    decoded: bool = False  #: whether the check decoded all pixels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def unchanged(self) -> bool:
        """Whether the file still has the size, time of change and inode of the check."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - a Path is slow to make, and a set has many images
            return _state(status) == (self.stored, self.modified, self.inode)
        except (OSError, ValueError):
            return False


def check_images(paths: Sequence[Path], cache_dir: Path, *, decode: bool = False) -> list[ImageFile | DataError]:
    """Check images, except those in the index that have not changed since; return each image or its problem.

    The index is in the folder ``headers`` of ``cache_dir``, one file for the images of the same folders. ``decode``
    decodes each image, which finds all defects, instead of reading its header and its end.
    """
    folders = "\0".join(sorted({str(path.absolute().parent) for path in paths}))
    name = hashlib.sha256(folders.encode(errors="surrogateescape")).hexdigest()[:32]
    index = cache_dir / "headers" / f"{name}.json"
    known = _load(index)
    checked: dict[Path, ImageFile | DataError] = {}
    if _unknown(paths, known, decode):
        with file_lock(index.with_suffix(".lock"), "checking the same images"):
            known = _load(index)  # another process may have checked them
            unknown = _unknown(paths, known, decode)
            threads = cores() if decode else 4 * cores()
            found = each(partial(_check, decode=decode), unknown, label="checking images", threads=threads)
            checked = dict(zip(unknown, found, strict=True))
            known |= {file.path: file for file in found if isinstance(file, ImageFile)}
            _save(index, known)
    return [checked.get(path) or known[str(path.absolute())] for path in paths]


def _unknown(paths: Sequence[Path], known: Mapping[str, ImageFile], decode: bool) -> list[Path]:
    """Return the images that are not in the index, or have changed since."""
    files = ((path, known.get(str(path.absolute()))) for path in paths)
    return [path for path, file in files if not (file and file.decoded >= decode and file.unchanged)]


def _save(index: Path, known: Mapping[str, ImageFile]) -> None:
    content = {"format": _FORMAT, "images": [astuple(file) for file in known.values()]}
    try:
        with atomic_write(index) as partial_file:
            partial_file.write_text(json.dumps(content), encoding="ascii")
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        log.warning("%s: the index of checked images %s; set data.cache_dir=… to another.", index.parent, reason)


def _load(index: Path) -> dict[str, ImageFile]:
    try:
        require_regular_file(index, _MAX_BYTES)
        content = json.loads(index.read_text(encoding="ascii"))
        entries = content["images"] if content["format"] == _FORMAT else []
        return {values[0]: _image_file(*values) for values in entries}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # missing or broken
        return {}


def _image_file(path: Any, *numbers: Any) -> ImageFile:
    if not isinstance(path, str) or [type(number) for number in numbers] != [int] * 5 + [bool] or min(numbers[3:5]) < 1:
        raise ValueError("not an entry of the index")
    return ImageFile(path, *numbers)


def _check(path: Path, decode: bool) -> ImageFile:
    state = _state(require_regular_file(path))
    height, width = read_rgb(path).shape[:2] if decode else read_size(path, complete=True)
    return ImageFile(str(path.absolute()), *state, height, width, decode)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
