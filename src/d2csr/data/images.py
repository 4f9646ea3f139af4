"""Image files to arrays: H×W×3, RGB, 8 bits a channel."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image, UnidentifiedImageError

from d2csr.errors import DataError
from d2csr.files import cores, each, file_lock

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 200_000_000  # DRealSR's ground truth has 80 megapixels, which Pillow's own limit all but calls an attack

_ENDS = {"PNG": b"\0\0\0\0IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # an empty chunk and its checksum; a marker

_pillow_limit = threading.Lock()


@contextmanager
def open_image(path: str | Path, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an image by Pillow, under a limit of ours in place of Pillow's; its pixels are not decoded yet.

    Args:
        path: the image.
        max_pixels: the limit, where the user can set one; :data:`MAX_PIXELS` otherwise.

    Raises:
        DataError: its header states more pixels than ``max_pixels``: a small file can claim to be as large as it likes.
        OSError: what Pillow raises for a file that is missing or no image.
    """
    with _pillow_limit:  # a global of Pillow's, which checks it as it opens a file, and only then
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    with image:
        width, height = image.size
        limit = MAX_PIXELS if max_pixels is None else max_pixels
        if width * height > limit:
            trusted = "cut it" if max_pixels is None else f"raise the limit: max_pixels={width * height}"
            raise DataError(
                f"{path}: claims {width}×{height} = {width * height:,} pixels, above the limit of {limit:,}. "
                f"If you trust the file, {trusted}."
            )
        yield image


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image.

    8-bit RGB, in whatever format Pillow reads, is taken as it is. What else there is becomes that:

    - grayscale, and black and white: repeated over the channels;
    - a palette: looked up;
    - alpha: dropped, whatever the colours below it are;
    - 16-bit grayscale: divided by 257 and rounded, so that 65535 becomes 255;
    - 16-bit colour: the upper byte, which is what Pillow reads;
    - CMYK: red is (255 − C)(255 − K) / 255, and so on for green and blue.

    A colour profile changes nothing, nor does an orientation tag, save in TIFF, which Pillow turns upright; of several
    frames the first one counts.

    Returns:
        H×W×3, uint8, RGB.

    Raises:
        DataError: the file is missing, no image, broken, larger than :data:`MAX_PIXELS`, or has figures of an unknown
            range: floats, or integers beyond 16 bits.
    """
    try:
        with open_image(path) as image:
            if image.mode == "F":
                raise DataError(
                    f"{path}: floating-point figures, whose range nothing tells; save it with 8 or 16 bits."
                )
            if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255 instead of scaling them
                figures = np.asarray(image, dtype=np.float64)
                if figures.min() < 0 or figures.max() > 65535:
                    raise DataError(f"{path}: figures beyond 16 bits; save it with 8 or 16 bits.")
                return np.repeat(np.rint(figures / 257).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise image_error(path, error) from None


def read_size(path: str | Path, *, whole: bool = False) -> tuple[int, int]:
    """Return the height and width that an image's header states; its pixels are not decoded.

    Args:
        path: the image.
        whole: make sure that the file was not cut short, as copies and downloads are. PNG and JPEG end in a mark of
            their own; an image without one is decoded, since nothing less tells.

    Raises:
        DataError: the file is missing, no image, or larger than :data:`MAX_PIXELS`; with ``whole`` also, it is broken.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            end = _ENDS.get(image.format or "")
        if whole and not (end and _ends_in(path, end)):
            read_rgb(path)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise image_error(path, error) from None
    return height, width


def _ends_in(path: str | Path, end: bytes) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def image_error(path: str | Path, error: Exception) -> DataError:
    """Return what to tell the user of an error that Pillow raised for a file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such image")
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return DataError(f"{path}: {'an empty file' if empty else 'not an image that can be read'}")
    return DataError(f"{path}: a broken image ({error})")


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
        with file_lock(memory.file.with_suffix(".lock"), "checking the same images"):
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
        raise image_error(path, error) from None
    return ImageFile(str(path.absolute()), *stamp, *read_size(path, whole=True))


def _stamp(path: str | Path) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns
