"""The image index: sizes of image files on disk, remembered until a file changes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from d2csr.data.images import image_error, read_rgb, read_size
from d2csr.errors import DataError
from d2csr.files import atomic_write, cores, each, file_lock, require_regular_file

log = logging.getLogger(__name__)

_FORMAT = 2  # of the file; another one is read anew
_MAX_BYTES = 2**30  # of the file: about 5 million images


@dataclass(frozen=True)
class ImageFile:
    """An image on disk, as it was when it was indexed.

    Attributes:
        path: absolute.
        stored: its size in bytes.
        modified: its time of change, in nanoseconds.
        inode: its number in the file system; a file that replaced it has another one.
        height: in pixels, as its header states.
        width: in pixels, as its header states.
        decoded: its pixels were decoded, and not its header alone.
    """

    path: str
    stored: int
    modified: int
    inode: int
    height: int
    width: int
    decoded: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def unchanged(self) -> bool:
        """Whether the file still has its size, time and inode."""
        try:
            return _stamp(self.path) == (self.stored, self.modified, self.inode)
        except OSError:
            return False


def index_images(paths: Sequence[Path], cache_dir: Path, *, decode: bool = False) -> list[ImageFile | DataError]:
    """Read the sizes of images, except of those that are indexed and unchanged.

    Args:
        paths: the images.
        cache_dir: where the index is kept: in its folder ``index``, a file for the images of the same folders.
        decode: also decode every image, to find broken pixels.

    Returns:
        For each path its entry, or its error; errors are never remembered.
    """
    index = _Index(cache_dir, paths)
    found = index.find(paths, decode)
    if None in found:
        with file_lock(index.file.with_suffix(".lock"), "checking the same images"):
            found = index.find(paths, decode)
            unknown = [number for number, file in enumerate(found) if file is None]
            read = each(
                partial(_read, decode=decode),
                [paths[number] for number in unknown],
                label="decoding images" if decode else "checking images",
                threads=cores() if decode else 4 * cores(),
            )
            for number, file in zip(unknown, read, strict=True):
                found[number] = file
            index.add(file for file in read if isinstance(file, ImageFile))
    return [file for file in found if file is not None]


class _Index:
    """The entries of the images of the same folders, in a file."""

    def __init__(self, cache_dir: Path, paths: Sequence[Path]) -> None:
        folders = "\0".join(sorted({str(path.absolute().parent) for path in paths}))
        name = hashlib.sha256(folders.encode(errors="surrogateescape")).hexdigest()[:32]
        self.file = cache_dir / "index" / f"{name}.json"

    def find(self, paths: Sequence[Path], decode: bool) -> list[ImageFile | DataError | None]:
        """Return the entries of unchanged images, and None for all others."""
        known = self._load()
        if not known:
            return [None] * len(paths)
        files = [known.get(str(path.absolute())) for path in paths]
        return [file if file and (file.decoded or not decode) and file.unchanged else None for file in files]

    def add(self, files: Iterable[ImageFile]) -> None:
        """Add entries to the file."""
        known = {**self._load(), **{file.path: file for file in files}}
        content = {"format": _FORMAT, "images": [astuple(file) for file in known.values()]}
        try:
            with atomic_write(self.file) as partial_file:
                partial_file.write_text(json.dumps(content), encoding="ascii")
        except OSError as error:
            log.warning(
                "%s: the check of the images cannot be remembered there (%s), and is done again at every start. "
                "Name another folder by data.cache_dir=….",
                self.file.parent,
                error.strerror,
            )

    def _load(self) -> dict[str, ImageFile]:
        try:
            require_regular_file(self.file, _MAX_BYTES)
            content = json.loads(self.file.read_text(encoding="ascii"))
            if content["format"] != _FORMAT:
                return {}
            return {values[0]: _entry(*values) for values in content["images"]}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # missing, or not an index
            return {}


def _entry(path: str, stored: int, modified: int, inode: int, height: int, width: int, decoded: bool) -> ImageFile:
    numbers = (stored, modified, inode, height, width)
    if not isinstance(path, str) or not all(type(number) is int for number in numbers) or min(height, width) < 1:
        raise ValueError("not an entry")
    return ImageFile(path, *numbers, decoded=decoded is True)


def _read(path: Path, decode: bool) -> ImageFile:
    try:
        stamp = _stamp(path)
    except (OSError, ValueError) as error:
        raise image_error(path, error) from None
    height, width = read_rgb(path).shape[:2] if decode else read_size(path, whole=True)
    return ImageFile(str(path.absolute()), *stamp, height, width, decoded=decode)


def _stamp(path: str | Path) -> tuple[int, int, int]:
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
