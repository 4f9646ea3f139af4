"""Image files to arrays: H×W×3, RGB, 8 bits a channel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from d2csr.errors import DataError

MAX_PIXELS = 200_000_000  # DRealSR's ground truth has 80 megapixels, which Pillow's own limit all but calls an attack

_pillow_limit = threading.Lock()


@contextmanager
def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image by Pillow, under a limit of ours in place of Pillow's; its pixels are not decoded yet.

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
        if width * height > max_pixels:
            raise DataError(
                f"{path}: claims {width}×{height} = {width * height:,} pixels, above the limit of {max_pixels:,}. "
                f"If you trust the file, raise the limit: max_pixels={width * height}."
            )
        yield image


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image.

    Grayscale is repeated over the channels, a palette looked up, alpha dropped, 16-bit grayscale scaled to 8 bits.

    Returns:
        H×W×3, uint8, RGB.

    Raises:
        DataError: the file is missing, no image, broken, or larger than :data:`MAX_PIXELS`.
    """
    try:
        with open_image(path) as image:
            if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255 instead of scaling them
                grey = np.rint(np.asarray(image, dtype=np.float64).clip(0, 65535) / 257).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise explained(path, error) from None


def read_size(path: str | Path) -> tuple[int, int]:
    """Return the height and width that an image's header states; its pixels are not decoded.

    Raises:
        DataError: the file is missing, no image, or larger than :data:`MAX_PIXELS`.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise explained(path, error) from None
    return height, width


def explained(path: str | Path, error: Exception) -> DataError:
    """Return what to tell the user of an error that Pillow raised for a file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such image")
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return DataError(f"{path}: {'an empty file' if empty else 'not an image that can be read'}")
    return DataError(f"{path}: a broken image ({error})")
