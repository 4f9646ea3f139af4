"""Image files to arrays: H×W×3, RGB, 8 bits a channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from d2csr.errors import DataError


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image.

    Grayscale is repeated over the channels, a palette looked up, alpha dropped, 16-bit grayscale scaled to 8 bits.

    Returns:
        H×W×3, uint8, RGB.

    Raises:
        DataError: the file is missing, no image, or broken.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255 instead of scaling them
                grey = np.rint(np.asarray(image, dtype=np.float64).clip(0, 65535) / 257).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _explained(path, error) from None


def read_size(path: str | Path) -> tuple[int, int]:
    """Return the height and width that an image's header states; its pixels are not decoded.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _explained(path, error) from None
    return height, width


def _explained(path: str | Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such image")
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return DataError(f"{path}: {'an empty file' if empty else 'not an image that can be read'}")
    return DataError(f"{path}: a broken image ({error})")
