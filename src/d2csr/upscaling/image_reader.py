"""Image files as people have them: grey, with alpha, a palette, 16 bits, a colour profile, or lying on their side."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from d2csr.data.images import MAX_PIXELS, image_error, open_image
from d2csr.errors import DataError
from d2csr.upscaling import sixteen_bit

_log = logging.getLogger(__name__)

_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
_MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBA"}


@dataclass(frozen=True)
class Picture:
    """An image, upright, in the form that its result is to have too.

    Attributes:
        colour: H×W×1 (grey) or H×W×3 (RGB), uint8 or uint16.
        alpha: H×W of the same dtype, 0 for transparent; None where there is none.
        icc: the colour profile that the figures are to be read by.
    """

    colour: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None

    @property
    def depth(self) -> int:
        """The largest figure: 255 or 65535."""
        return int(np.iinfo(self.colour.dtype).max)


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image file, and turn it upright if its orientation tag says that it is not.

    A palette is looked up, and black and white becomes grey; CMYK becomes sRGB. Of an animation or a document of
    several pages, the first is taken.

    Args:
        path: PNG, JPEG, WebP, TIFF, or whatever else Pillow reads.
        max_pixels: images that claim to have more are refused before they are decoded.

    Raises:
        DataError: the file is missing, no image, broken, too large, or its figures have no known range.
    """
    try:
        with open_image(path, max_pixels) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview
                _log.warning("%s: has %d frames; only the first is taken.", path, frames)
            deep_pixels = sixteen_bit.read_deep(path) if sixteen_bit.is_deep(image) else None
            _refuse_what_pillow_misreads(path, image)
            image.load()  # which turns a TIFF upright, and takes its tag away
            upright = _UPRIGHT.get(_orientation(image), lambda pixels: pixels)
            picture = _decoded(path, image) if deep_pixels is None else _split(deep_pixels, image)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise image_error(path, error) from None
    except Exception as error:  # whatever a decoder comes to over a broken file, the others go on
        raise DataError(f"{path}: a broken image ({type(error).__name__}: {error})") from error
    alpha = None if picture.alpha is None else np.ascontiguousarray(upright(picture.alpha))
    return replace(picture, colour=np.ascontiguousarray(upright(picture.colour)), alpha=alpha)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata, of which nothing else is asked
        return 1


def _refuse_what_pillow_misreads(path: str | Path, image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    raw = sixteen_bit.raw_mode(image)
    if image.mode.startswith("RGB") and 16 in tags.get(258, ()) and ";16" not in raw:
        raise DataError(f"{path}: a 16-bit TIFF with a plane for each colour; save it with interleaved colours.")
    if image.mode == "F":
        raise DataError(f"{path}: floating-point figures, whose range nothing tells; save it with 8 or 16 bits.")
    if ";16" in raw and image.mode.startswith("RGB") and not sixteen_bit.is_deep(image):
        _log.warning("%s: a form of 16 bits that is reduced to 8 (%s).", path, raw)


def _decoded(path: str | Path, image: Image.Image) -> Picture:
    """Return the figures of a decoded image; see :func:`read_picture`."""
    icc = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        figures = np.asarray(image)
        if figures.min() < 0 or figures.max() > 65535:
            raise DataError(f"{path}: figures of 32 bits, whose range nothing tells; save it with 8 or 16 bits.")
        return Picture(figures.astype(np.uint16)[..., None], icc=icc)
    if image.mode not in (*_MODES, "P", "PA"):
        image, icc = _to_srgb(image, icc), None
    mode = _MODES.get(image.mode, "RGB")
    if "A" not in mode and (image.has_transparency_data or image.mode == "PA"):
        mode = "LA" if mode == "L" else "RGBA"
    return _split(np.asarray(image.convert(mode)), image, icc)


def _split(pixels: np.ndarray, image: Image.Image, icc: bytes | None = None) -> Picture:
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    has_alpha = pixels.shape[2] in (2, 4)
    colour, alpha = (pixels[..., :-1], pixels[..., -1]) if has_alpha else (pixels, None)
    return Picture(colour, alpha, icc or image.info.get("icc_profile"))


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Turn CMYK and the like into RGB; its profile tells how, and is of no use afterwards."""
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a broken profile: better colours by rule of thumb than none
        if converted is not None:
            converted.info.pop("icc_profile", None)
            return converted
    converted = image.convert("RGB")
    converted.info.pop("icc_profile", None)
    return converted
