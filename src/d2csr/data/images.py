"""Image files to arrays: H×W×3, RGB, 8 bits a channel."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from d2csr.errors import DataError

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
        raise explained(path, error) from None


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
        raise explained(path, error) from None
    return height, width


def _ends_in(path: str | Path, end: bytes) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def explained(path: str | Path, error: Exception) -> DataError:
    """Return what to tell the user of an error that Pillow raised for a file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such image")
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return DataError(f"{path}: {'an empty file' if empty else 'not an image that can be read'}")
    return DataError(f"{path}: a broken image ({error})")
