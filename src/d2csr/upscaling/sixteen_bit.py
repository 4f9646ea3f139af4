"""Colour images of 16 bits a channel, which Pillow reduces to 8 bits as it reads them, and cannot write.

Reading takes Pillow's own decoders twice, once for the upper and once for the lower byte of every figure: no further
library is needed, and every compression that Pillow knows works. Writing takes the formats' own simplest form.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from d2csr.data.images import open_image

_BYTES_AT_ONCE = 2**24
_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to PNG's colour type


def raw_mode(image: Image.Image) -> str:
    """Return how the pixels lie in a file that is not decoded yet, in Pillow's words: ``RGB;16B`` and the like."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments if isinstance(arguments, str) else (arguments or [""])[0])


def is_deep(image: Image.Image) -> bool:
    """Tell whether an image that is not decoded yet has 16 bits a channel and would lose 8 of them."""
    return raw_mode(image).partition(";")[0] in ("RGB", "RGBA", "LA") and ";16" in raw_mode(image)


def read_deep(path: str | Path) -> np.ndarray:
    """Decode an image of which :func:`is_deep` holds, of any size.

    Returns:
        H×W×C, uint16, C of grey or RGB, and alpha where there is one.
    """
    with open_image(path, sys.maxsize) as image:
        colours, _, order = raw_mode(image).partition(";16")
    if colours == "LA":  # 32 bits a pixel, just as RGBA in 8 bits
        grey_high, grey_low, alpha_high, alpha_low = np.moveaxis(_decode(path, "RGBA").astype(np.uint16), -1, 0)
        return np.stack([grey_high << 8 | grey_low, alpha_high << 8 | alpha_low], axis=-1)
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    # Pillow takes the first byte of each pair if it believes that the larger one comes first, else the second.
    first, second = (_decode(path, f"{colours};16{believed}").astype(np.uint16) for believed in "BL")
    return second << 8 | first if little else first << 8 | second


def _decode(path: str | Path, raw: str) -> np.ndarray:
    with open_image(path, sys.maxsize) as image:
        tiles = []
        for tile in getattr(image, "tile"):  # noqa: B009 - of an ImageFile, which Image.open says nothing of
            arguments = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
            replace = getattr(tile, "_replace", None)  # a plain tuple up to Pillow 11.0
            tiles.append(replace(args=arguments) if replace else (*tile[:3], arguments))
        setattr(image, "tile", tiles)  # noqa: B010
        return np.asarray(image)


def write_png(file: BinaryIO, pixels: np.ndarray, icc: bytes | None = None) -> None:
    """Write H×W×C, uint16, as PNG; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)."""
    height, width, channels = pixels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0))
    if icc:
        _chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    compressor = zlib.compressobj(6)
    above = np.zeros((1, width * channels * 2), np.uint8)
    for block in _blocks(pixels, ">u2"):
        filtered = np.empty((block.shape[0], block.shape[1] + 1), np.uint8)
        filtered[:, 0] = 2  # each byte as the difference to the one above it, which is small in photographs
        np.subtract(block, np.concatenate([above, block[:-1]]), out=filtered[:, 1:])
        above = block[-1:]
        _chunk(file, b"IDAT", compressor.compress(filtered.tobytes()))
    _chunk(file, b"IDAT", compressor.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))


def write_tiff(file: BinaryIO, pixels: np.ndarray, icc: bytes | None = None) -> None:
    """Write H×W×C, uint16, as a TIFF of one strip, compressed by deflate; C as for :func:`write_png`."""
    height, width, channels = pixels.shape
    file.write(struct.pack("<2sHI", b"II", 42, 0))  # where the directory lies is filled in below
    compressor = zlib.compressobj(6)
    for block in _blocks(pixels, "<u2"):
        file.write(compressor.compress(block.tobytes()))
    file.write(compressor.flush())
    length = file.tell() - 8
    fields: list[tuple[int, str, tuple[int, ...] | bytes]] = [
        (256, "I", (width,)),
        (257, "I", (height,)),
        (258, "H", (16,) * channels),
        (259, "H", (8,)),  # deflate
        (262, "H", (1 if channels < 3 else 2,)),  # black is zero; RGB
        (273, "I", (8,)),  # where the strip starts
        (277, "H", (channels,)),
        (278, "I", (height,)),
        (279, "I", (length,)),
    ]
    if channels in (2, 4):
        fields.append((338, "H", (2,)))  # alpha that the colours are not multiplied by
    if icc:
        fields.append((34675, "B", icc))
    _write_directory(file, fields)


def _write_directory(file: BinaryIO, fields: list[tuple[int, str, tuple[int, ...] | bytes]]) -> None:
    codes = {"B": 7, "H": 3, "I": 4}
    entries = []
    for tag, kind, values in fields:
        content = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{kind}", *values)
        if len(content) > 4:  # what is longer lies elsewhere, at an even place
            file.write(b"\0" * (file.tell() % 2))
            where = struct.pack("<I", file.tell())
            file.write(content)
            content = where
        entries.append(struct.pack("<HHI4s", tag, codes[kind], len(values), content))
    file.write(b"\0" * (file.tell() % 2))
    start = file.tell()
    file.write(struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0))
    file.seek(4)
    file.write(struct.pack("<I", start))


def _blocks(pixels: np.ndarray, order: str) -> Iterator[np.ndarray]:
    """Yield the bytes of some rows at a time, rows×bytes."""
    height, width, channels = pixels.shape
    rows = max(1, _BYTES_AT_ONCE // (width * channels * 2))
    for start in range(0, height, rows):
        block = np.ascontiguousarray(pixels[start : start + rows], order)
        yield block.view(np.uint8).reshape(len(block), -1)
