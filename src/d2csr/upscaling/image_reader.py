"""Decoding of image files: grey, alpha, palettes, 16 bits a channel, colour profiles and orientation tags."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

from d2csr.data.images import MAX_PIXELS, grey_16_bits, open_image
from d2csr.errors import DataError, printable

_log = logging.getLogger(__name__)

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "P", "PA")


@dataclass(frozen=True)
class ImageArray:
    """A decoded, upright image, or a result."""

    colour: np.ndarray  # H×W×1 (grey) or H×W×3 (RGB), uint8 or uint16
    alpha: np.ndarray | None = None  # H×W of the same dtype, 0 for transparent
    icc: bytes | None = None  # the colour profile
    palette: bytes | None = None  # of a result of 8 bits and one channel: R, G and B of 256 colours


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, check_size: Callable[[int, int], None] | None = None
) -> ImageArray:
    """Decode an image file, and turn it upright by its orientation tag.

    Palettes are looked up, black and white becomes grey, CMYK becomes sRGB. Only the first frame or page is read.
    Before decoding, images of more than ``max_pixels`` are refused, and ``check_size`` is called with height and width.

    Raises:
        DataError: the file is missing, no image, broken or too large, or the range of its values is unknown.
    """
    with open_image(path, max_pixels) as image:
        if check_size is not None:
            check_size(image.height, image.width)
        # Not n_frames, for which Pillow reads the whole file. MPO: a phone's JPEG with a preview.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            _log.warning("%s: has several frames; only the first is used.", printable(str(path)))
        raw = _raw_mode(image)
        _check_range(path, image, raw)
        if _is_16_bit_colour(raw):
            pixels, icc = _decode_16_bit(path, raw, max_pixels), image.info.get("icc_profile")
        else:
            _load_upright(image)
            pixels, icc = _decode(path, image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] in (2, 4):
        return ImageArray(pixels[..., :-1], pixels[..., -1], icc)
    return ImageArray(pixels, icc=icc)


def _load_upright(image: Image.Image) -> None:
    image.load()
    with suppress(Exception):  # broken metadata does not make the image unusable
        ImageOps.exif_transpose(image, in_place=True)


def _check_range(path: str | Path, image: Image.Image, raw: str) -> None:
    """Refuse images that Pillow decodes wrongly."""
    bits = getattr(image, "tag_v2", {}).get(258, ())
    if image.mode.startswith("RGB") and 16 in bits and ";16" not in raw:
        raise DataError(f"{path}: a 16-bit TIFF with one plane per colour; save it with interleaved colours.")
    if ";16" in raw and image.mode.startswith("RGB") and not _is_16_bit_colour(raw):
        _log.warning("%s: this kind of 16-bit image is reduced to 8 bits (%s).", printable(str(path)), raw)


def _decode(path: str | Path, image: Image.Image) -> tuple[np.ndarray, bytes | None]:
    icc = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        return grey_16_bits(path, image), icc
    if image.mode not in (*_GREY, *_COLOUR):
        image, icc = _to_srgb(image, icc), None
    mode = "L" if image.mode in _GREY else "RGB"
    return np.asarray(image.convert(f"{mode}A" if image.has_transparency_data else mode)), icc


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert CMYK and similar modes to RGB by their profile; without a usable profile by Pillow's formula."""
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    return image.convert("RGB")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return the pixel layout in a file that is not decoded yet, by Pillow's name: ``RGB;16B`` and the like."""
    arguments = image.tile[0].args if image.tile else ""
    return str(arguments if isinstance(arguments, str) else (arguments or [""])[0])


def _is_16_bit_colour(raw: str) -> bool:
    return raw.partition(";")[0] in ("RGB", "RGBA", "LA") and ";16" in raw


def _decode_16_bit(path: str | Path, raw: str, max_pixels: int) -> np.ndarray:
    """Return H×W×C, uint16: grey with alpha, RGB, or RGB with alpha.

    Pillow reduces 16-bit colour to 8 bits, so its decoder runs once for the upper byte of each value and once for the
    lower one. Alternatives: tifffile needs another library for LZW, torchvision reads no TIFF, OpenCV drops colour
    profiles, and pypng is slow.
    """
    channels, _, order = raw.partition(";16")
    if channels == "LA":  # 32 bits a pixel, as 8-bit RGBA
        high, low, alpha_high, alpha_low = np.moveaxis(_decode_as(path, "RGBA", max_pixels), -1, 0)
        return np.stack([high << 8 | low, alpha_high << 8 | alpha_low], axis=-1)
    little_endian = order == "L" or (order == "N" and sys.byteorder == "little")
    # Pillow keeps the first byte of each pair for big-endian, the second for little-endian.
    first, second = (_decode_as(path, f"{channels};16{order}", max_pixels) for order in "BL")
    if first.shape != second.shape:
        raise DataError(f"{path}: the file changed while it was read.")
    return second << 8 | first if little_endian else first << 8 | second


def _decode_as(path: str | Path, raw: str, max_pixels: int) -> np.ndarray:
    """Decode an image under another pixel layout than its header states."""
    with open_image(path, max_pixels) as image:
        for index, tile in enumerate(image.tile):
            image.tile[index] = tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        _load_upright(image)
        return np.asarray(image).astype(np.uint16)
