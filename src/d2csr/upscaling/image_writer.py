"""Encoding of image files, in threads; each appears under its name only when it is complete."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from PIL import Image

from d2csr.data.images import to_8_bits
from d2csr.errors import DataError
from d2csr.files import atomic_write, cores
from d2csr.upscaling.image_reader import ImageArray

#: File formats by the value of ``format``.
FORMATS = ("png", "jpg", "webp", "tif", "same")
DEFAULT_QUALITY = 95
DEFAULT_COMPRESSION = 6

_ENCODINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_BLOCK_BYTES = 2**24
_MAX_THREADS = 8  # on a node of many cores, more results would wait in memory
_MAX_BYTES = 10**9  # of results that wait or are written, beyond the first two


def result_name(name: Path, file_format: str) -> Path:
    """Return an image's name or path with the suffix of one of :data:`FORMATS`.

    ``same`` keeps the suffix, or uses ``.png`` if the format cannot be written.
    """
    if file_format == "same":
        return name if name.suffix.lower() in _ENCODINGS else name.with_suffix(".png")
    return name.with_suffix(f".{file_format}")


def write_image(
    image: ImageArray,
    path: Path,
    *,
    quality: int = DEFAULT_QUALITY,
    png_compression: int = DEFAULT_COMPRESSION,
    token: str = "",
) -> None:
    """Write an image in the format of the path's suffix; ``quality`` is that of JPEG and WebP, 1 to 100.

    PNG and TIFF keep 16 bits; JPEG and WebP have 8. The colour profile is the only metadata that is written. ``token``
    is part of the name of the incomplete file, which a killed process leaves.

    Raises:
        DataError: the file cannot be written, or the format cannot hold the image.
    """
    encoding = _ENCODINGS[path.suffix.lower()]
    side, most = max(image.colour.shape[:2]), _MAX_SIDE.get(encoding, math.inf)
    if side > most:
        raise DataError(f"{path}: {side} pixels a side, {encoding} holds at most {most}; choose format=png or tif.")
    if encoding == "JPEG" and image.alpha is not None:
        raise DataError(f"{path}: JPEG holds no transparency; choose format=png, webp or tif.")
    try:
        with atomic_write(path, token=token) as partial:
            _encode(image, partial, encoding, quality, png_compression)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path}: cannot be written ({reason}).") from None


def check_folder(folder: Path) -> None:
    """Make an output folder; raise a DataError if no file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror}). Choose another output folder.") from None


def _encode(image: ImageArray, path: Path, encoding: str, quality: int, png_compression: int) -> None:
    pixels = image.colour
    if image.alpha is not None:
        pixels = np.concatenate([pixels, image.alpha[..., None]], axis=-1)
    if encoding == "TIFF":
        return write_tiff(path, pixels, image.icc)
    if encoding == "PNG" and pixels.dtype == np.uint16:
        return write_png16(path, pixels, image.icc, png_compression)
    pixels = to_8_bits(pixels) if pixels.dtype == np.uint16 else pixels
    made = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if image.palette is not None:
        made.putpalette(image.palette)
    # A format ignores the options of others. For JPEG, subsampling=0 is the full colour resolution.
    options = {"quality": quality, "subsampling": 0, "compress_level": png_compression}
    made.save(path, format=encoding, icc_profile=image.icc, **options)


def write_tiff(path: Path, pixels: np.ndarray, icc: bytes | None) -> None:
    """Write H×W×C, uint8 or uint16, as TIFF; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    import tifffile  # other images do not need it

    channels = pixels.shape[2]
    tifffile.imwrite(
        path,
        pixels[..., 0] if channels == 1 else pixels,
        photometric="minisblack" if channels < 3 else "rgb",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=icc,
        metadata=None,
        software=False,
    )


def write_png16(path: Path, pixels: np.ndarray, icc: bytes | None, compression: int) -> None:
    """Write H×W×C, uint16, as PNG, which Pillow cannot; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    height, width, channels = pixels.shape
    row_bytes = width * channels * 2
    block_rows = max(1, _BLOCK_BYTES // row_bytes)
    compressor = zlib.compressobj(compression)
    above = np.zeros((1, row_bytes), np.uint8)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0))
        if icc:
            _write_chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
        for start in range(0, height, block_rows):
            block = np.ascontiguousarray(pixels[start : start + block_rows], ">u2")
            rows = block.view(np.uint8).reshape(-1, row_bytes)
            # The filter "up", which has the number 2: each byte minus the one above it.
            filtered = np.insert(np.diff(rows, axis=0, prepend=above), 0, 2, axis=1)
            above = rows[-1:]
            _write_chunk(file, b"IDAT", compressor.compress(filtered.tobytes()))
        _write_chunk(file, b"IDAT", compressor.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))


class WriteQueue:
    """Runs writes in several threads.

    Encoding a PNG takes longer than computing it on a GPU; it releases Python's lock, so that threads suffice.

    Args:
        threads: at most 8; by default the CPU cores of this process.
        max_bytes: of all results that wait or are written. The first two are always accepted, so that one is written
            while the next one is computed, whatever their size is.
    """

    def __init__(self, threads: int | None = None, max_bytes: int = _MAX_BYTES) -> None:
        self._most = min(threads or cores(), _MAX_THREADS)
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(self._most, "write")
        self._sizes: dict[Future[None], int] = {}

    def submit(self, write: Callable[[], None], size: int) -> None:
        """Queue a write of a number of bytes; wait while the queue is full, and raise what an earlier write raised."""
        while len(self._sizes) > self._most or (
            len(self._sizes) > 1 and sum(self._sizes.values()) + size > self._max_bytes
        ):
            for future in wait(self._sizes, return_when=FIRST_COMPLETED).done:
                del self._sizes[future]
                future.result()
        self._sizes[self._pool.submit(write)] = size

    def close(self, cancel: bool = False) -> None:
        """Wait for all writes and raise what one of them raised; with ``cancel``, for those that have begun."""
        self._pool.shutdown(cancel_futures=cancel)
        for future in () if cancel else self._sizes:
            future.result()
