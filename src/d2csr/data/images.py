"""Image files as arrays: H×W×3, RGB, 8 bits a channel."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, UnidentifiedImageError

from d2csr.errors import DataError, UserError
from d2csr.files import require_regular_file

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
MAX_PIXELS = 200_000_000  # DRealSR's ground truth has 80 megapixels, near the limit of Pillow's own check

# Pillow chooses the decoder by the content, not by the suffix, and its decoder of EPS starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
_ENDS = {"PNG": b"\0\0\0\0IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # an empty chunk and its checksum; a marker

MAX_PARTS = 200_000  # tiles or strips of a TIFF, about 10 µs each; one for each row is usual
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the first bytes in either byte order, and of BigTIFF

_pillow_limit = threading.Lock()


@contextmanager
def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile.ImageFile]:
    """Open a PNG, JPEG, WebP, TIFF, BMP, PPM or GIF by Pillow without decoding its pixels, with our limit of pixels.

    Raises:
        DataError: the file is missing or not a regular file, or its header states more pixels than ``max_pixels``,
            more than :data:`MAX_PARTS` tiles, or floating-point values, which can have any range; or Pillow raises any
            exception, here or in the block.
    """
    require_regular_file(path)
    with _decoder_errors(path), _open(path) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{path}: claims {width}×{height} = {width * height:,} pixels, above the limit of {max_pixels:,}. "
                f"If you trust the file, cut it, or raise the limit of d2csr-upscale: max_pixels={width * height}."
            )
        if len(image.tile) > MAX_PARTS:
            raise DataError(f"{path}: has more than {MAX_PARTS:,} strips or tiles; save it with fewer.")
        if image.mode == "F":
            raise DataError(f"{path}: floating-point image of unknown range; convert it to 8 or 16 bits.")
        yield image


def _open(path: str | Path) -> ImageFile.ImageFile:
    with _pillow_limit:  # a global of Pillow's, which is checked only while a file is opened
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image to H×W×3, uint8, RGB.

    Gray is repeated over the channels and alpha is dropped; 16-bit gray is divided by 257 and rounded. Colour profiles
    are ignored. Orientation tags are ignored too, except in TIFF, which Pillow turns upright. Of several frames the
    first one is read. ``docs/data.md`` lists all conversions.

    Raises:
        DataError: the file is missing, no image, broken, or larger than :data:`MAX_PIXELS`; or the range of its values
            is unknown: floats, or integers beyond 16 bits.
    """
    import numpy as np  # here, since d2csr-lists reads sizes alone and should start fast

    with open_image(path) as image:
        if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255 instead of scaling them
            return np.repeat(to_8_bits(grey_16_bits(path, image))[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))


def grey_16_bits(path: str | Path, image: Image.Image) -> np.ndarray:
    """Return the values of an integer image, H×W, uint16; raise a DataError if any is beyond 16 bits."""
    import numpy as np

    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: 32-bit image of unknown range; convert it to 8 or 16 bits.")
    return values.astype(np.uint16)


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Return uint16 values divided by 257 and rounded, uint8."""
    return ((values.astype("uint32") + 128) // 257).astype("uint8")


def read_size(path: str | Path, *, complete: bool = False) -> tuple[int, int]:
    """Return the height and width that an image's header states.

    ``complete`` also checks that the file was not cut short: PNG and JPEG end in a marker, other images are decoded.

    Raises:
        DataError: the file is missing, no image, larger than :data:`MAX_PIXELS`, or cut short.
    """
    with open_image(path) as image:
        width, height = image.size
        end = _ENDS.get(image.format or "")
        decode = complete and not (end and _ends_in(path, end))
    if decode:
        read_rgb(path)
    return height, width


@contextmanager
def _decoder_errors(path: str | Path) -> Iterator[None]:
    """Turn the exceptions of a decoder into a DataError; broken files can cause any exception."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise DataError(f"{path}: not enough memory to decode this image.") from None
    except UnidentifiedImageError:
        with Path(path).open("rb") as file:
            start = file.read(4)
        reason = "not an image that can be read" if start else "an empty file"
        if start in _TIFF:
            kinds = "floats, more than 16 bits, 16-bit grey with alpha"
            reason = f"a TIFF that is broken, or of a kind that is not read ({kinds}); convert it to 8 or 16 bits, RGB."
        raise DataError(f"{path}: {reason}") from None
    except Exception as error:
        raise DataError(f"{path}: a broken image ({str(error) or type(error).__name__})") from None


def _ends_in(path: str | Path, end: bytes) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end
