"""Pictures to files: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from d2csr.errors import ConfigError, DataError
from d2csr.upscaling import sixteen_bit
from d2csr.upscaling.image_reader import Picture

FORMATS = ("png", "jpg", "webp", "tif", "same")
DEFAULT_QUALITY = 95

_ENCODINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_LONGEST_SIDE = {"JPEG": 65_535, "WEBP": 16_383}


def result_name(name: Path, form: str) -> Path:
    """Return the name of a result: with the suffix of its format; under ``same`` that of the image, where we write it.

    Args:
        name: of the image, with any folders before it.
        form: one of :data:`FORMATS`.

    Raises:
        ConfigError: there is no such format.
    """
    if form not in FORMATS:
        raise ConfigError(f"format: must be one of {', '.join(FORMATS)}, got {form!r}.")
    if form == "same":
        return name if name.suffix.lower() in _ENCODINGS else name.with_suffix(".png")
    return name.with_suffix(f".{form}")


def write_picture(picture: Picture, path: Path, *, quality: int = DEFAULT_QUALITY, token: str = "0") -> None:
    """Write a picture in the format of its path's suffix; it appears under that path only once it is whole.

    16 bits are kept by PNG and TIFF; JPEG and WebP have 8. No metadata is written but the colour profile: the picture
    is upright already.

    Args:
        picture: to write.
        path: where; its folders are made.
        quality: of JPEG and WebP, up to 100.
        token: goes into the name of the file while it is incomplete, ``.NAME.TOKEN.partial``.

    Raises:
        DataError: it cannot be written there, or the format cannot hold it.
    """
    encoding = _ENCODINGS[path.suffix.lower()]
    _check(picture, path, encoding)
    partial = path.with_name(f".{path.name}.{token}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(picture, partial, encoding, quality)
        partial.replace(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: cannot be written ({reason}).") from None
    finally:
        partial.unlink(missing_ok=True)


def check_folder(folder: Path, token: str) -> None:
    """Make an output folder, and try whether files can be written into it, before work begins that takes hours.

    Raises:
        DataError: they cannot.
    """
    probe = folder / f".{token}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror}). Choose another output folder.") from None


def remove_partial(folder: Path, token: str) -> None:
    """Remove the incomplete files of a run, which a killed process may have left behind."""
    for partial in folder.rglob(f".*.{token}.partial"):
        partial.unlink(missing_ok=True)


def _check(picture: Picture, path: Path, encoding: str) -> None:
    if encoding == "JPEG" and picture.alpha is not None:
        raise DataError(f"{path}: JPEG holds no transparency; choose format=png, webp or tif.")
    side = max(picture.colour.shape[:2])
    if side > _LONGEST_SIDE.get(encoding, side):
        longest = _LONGEST_SIDE[encoding]
        raise DataError(f"{path}: {side} pixels a side, and {encoding} ends at {longest}; choose format=png or tif.")


def _encode(picture: Picture, path: Path, encoding: str, quality: int) -> None:
    pixels = picture.colour
    if picture.alpha is not None:
        pixels = np.concatenate([pixels, picture.alpha[..., None]], axis=-1)
    if pixels.dtype == np.uint16 and encoding in ("PNG", "TIFF"):
        with path.open("wb") as file:
            (sixteen_bit.write_png if encoding == "PNG" else sixteen_bit.write_tiff)(file, pixels, picture.icc)
        return
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    options: dict[str, object] = {"icc_profile": picture.icc} if picture.icc else {}
    if encoding in ("JPEG", "WEBP"):
        options["quality"] = quality
    if encoding == "JPEG":
        options["subsampling"] = 0  # colours as sharp as brightness
    if encoding == "TIFF":
        options["compression"] = "tiff_deflate"
    image.save(path, format=encoding, **options)
