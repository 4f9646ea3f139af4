"""Image files to arrays: H×W×3, RGB, 8 bits a channel."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from d2csr.errors import DataError
from d2csr.files import require_regular_file

if TYPE_CHECKING:
    import numpy as np  # at run time where images are decoded: d2csr-lists reads headers alone, and starts faster

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# Decoders of formats that photographs are stored in. Others, such as EPS, start programs or are hardly tested.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "PPM", "GIF", "JPEG2000")
MAX_PIXELS = 200_000_000  # DRealSR's HR images have 80 megapixels, close to the limit of Pillow

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
            Also, it is a FIFO, a device, or another kind of file that may block or never end.
        OSError: what Pillow raises for a file that is missing or no image.
    """
    if Path(path).exists() and not Path(path).is_dir():
        require_regular_file(Path(path))
    with _pillow_limit:  # a global of Pillow's, which checks it as it opens a file, and only then
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=FORMATS)
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
        DataError: the file is missing, no image, broken, larger than :data:`MAX_PIXELS`, or has values of an unknown
            range: floats, or integers beyond 16 bits.
    """
    import numpy as np

    with _decoding(path), open_image(path) as image:
        if image.mode == "F":
            raise DataError(f"{path}: floating-point image of unknown range; convert it to 8 or 16 bits.")
        if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255 instead of scaling them
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise DataError(f"{path}: values beyond 16 bits; save it with 8 or 16 bits.")
            return np.repeat(_to_8_bits()[values][..., None], 3, axis=2)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


@cache
def _to_8_bits() -> np.ndarray:
    """Return the 8-bit value of each 16-bit value; a table takes less memory than arithmetic on large images."""
    import numpy as np

    return np.rint(np.arange(65536) / 257).astype(np.uint8)


def read_size(path: str | Path, *, whole: bool = False) -> tuple[int, int]:
    """Return the height and width that an image's header states; its pixels are not decoded.

    Args:
        path: the image.
        whole: also check that the file is not truncated. PNG and JPEG end in a marker; other formats are decoded.

    Raises:
        DataError: the file is missing, no image, or larger than :data:`MAX_PIXELS`; with ``whole`` also, it is broken.
    """
    with _decoding(path):
        with open_image(path) as image:
            width, height = image.size
            end = _ENDS.get(image.format or "")
        if whole and not (end and _ends_in(path, end)):
            read_rgb(path)
        return height, width


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """Turn everything that a decoder raises for a broken file into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # decoders raise many kinds: struct.error, KeyError, OverflowError, MemoryError, …
        raise image_error(path, error) from None


def _ends_in(path: str | Path, end: bytes) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def image_error(path: str | Path, error: Exception) -> DataError:
    """Return the message for an error that Pillow raised for a file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such image")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return DataError(f"{str(path)!r}: a path cannot hold a NUL character")
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return DataError(f"{path}: {'an empty file' if empty else 'not an image that can be read'}")
    return DataError(f"{path}: a broken image ({str(error) or type(error).__name__})")
