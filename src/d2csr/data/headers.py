"""What the headers of images say, remembered from run to run.

For an image that has neither another size nor another time of change than when it was last looked at, one call to the
file system replaces opening and reading it: a start over thousands of images, on a network disk too, costs next to
nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from uuid import uuid4

from d2csr.data.images import explained, read_size
from d2csr.data.parallel import cores, each, one_at_a_time
from d2csr.errors import DataError

log = logging.getLogger(__name__)

_FORMAT = 1  # of the files; anything else is read anew


@dataclass(frozen=True)
class ImageFile:
    """An image on disk, as it was when it was looked at.

    Attributes:
        path: absolute.
        stored: its size in bytes.
        modified: its time of change, in nanoseconds.
        height: in pixels, as the header says.
        width: likewise.
    """

    path: str
    stored: int
    modified: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def unchanged(self) -> bool:
        """Whether the file still has the size and time that it had."""
        try:
            return _stamp(self.path) == (self.stored, self.modified)
        except OSError:
            return False


def read_headers(paths: Sequence[Path], cache_dir: Path) -> list[ImageFile | DataError]:
    """Read the headers of images, except those that are known from an earlier time.

    Args:
        paths: the images.
        cache_dir: where to remember them: in its folder ``headers``, a file for the images of the same folders.

    Returns:
        For each path what was found, or what is wrong with it; the latter is never remembered.
    """
    memory = _Memory(cache_dir, paths)
    found = memory.recall(paths)
    if None in found:
        with one_at_a_time(memory.file.with_suffix(".lock"), "checking the same images"):
            found = memory.recall(paths)
            unknown = [number for number, file in enumerate(found) if file is None]
            read = each(_read, [paths[number] for number in unknown], label="checking images", threads=4 * cores())
            for number, file in zip(unknown, read, strict=True):
                found[number] = file
            memory.add(file for file in read if isinstance(file, ImageFile))
    return [file for file in found if file is not None]


class _Memory:
    """The images of the same folders, in a file."""

    def __init__(self, cache_dir: Path, paths: Sequence[Path]) -> None:
        folders = "\0".join(sorted({str(path.absolute().parent) for path in paths}))
        name = hashlib.sha256(folders.encode(errors="surrogateescape")).hexdigest()[:32]
        self.file = cache_dir / "headers" / f"{name}.json"

    def recall(self, paths: Sequence[Path]) -> list[ImageFile | DataError | None]:
        """Return the images that are remembered and have not changed since, and None for all others."""
        known = self._load()
        if not known:
            return [None] * len(paths)
        files = [known.get(str(path.absolute())) for path in paths]
        return [file if file is not None and file.unchanged else None for file in files]

    def add(self, files: Iterable[ImageFile]) -> None:
        """Remember images beside those that are remembered already."""
        known = {**self._load(), **{file.path: file for file in files}}
        content = {"format": _FORMAT, "images": [astuple(file) for file in known.values()]}
        unfinished = self.file.with_name(f".{self.file.stem}.{uuid4().hex}.partial")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_text(json.dumps(content), encoding="ascii")
                unfinished.replace(self.file)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "%s: the check of the images cannot be remembered there (%s), and is done again at every start. "
                "Name another folder by data.cache_dir=….",
                self.file.parent,
                error.strerror,
            )

    def _load(self) -> dict[str, ImageFile]:
        try:
            content = json.loads(self.file.read_text(encoding="ascii"))
            if content["format"] != _FORMAT:
                return {}
            return {values[0]: ImageFile(*values) for values in content["images"]}
        except (OSError, ValueError, LookupError, TypeError):  # none is there, or none of ours: nothing is known then
            return {}


def _read(path: Path) -> ImageFile:
    try:
        stamp = _stamp(path)
    except OSError as error:
        raise explained(path, error) from None
    return ImageFile(str(path.absolute()), *stamp, *read_size(path, whole=True))


def _stamp(path: str | Path) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns
