"""Encoding of a report's pictures, as good as its size allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from d2csr.files import atomic_write

REPORT_BYTES = 140_000_000  # of all pictures; a share of it is the limit of each image

_WEBP_SIDE = 16_383  # pixels; the largest of the format
_QUALITY = 90  # of reduced pictures beside lossless ones: their pixels differ anyway


@dataclass(frozen=True)
class Encoding:
    """How the pictures of an image are written."""

    name: str  # for the page
    quality: int | None  # of WebP; None is lossless
    shown: int  # the longest side of the pictures to compare, in pixels; larger ones are reduced
    shown_details: int  # the same for pictures of leaves, weights, differences and errors
    full: bool  # a larger picture to compare has a file of its full size too
    full_details: bool  # the same for the other pictures
    bytes_per_pixel: float  # an estimate for one picture of full size, from above for photographs


ENCODINGS = (
    Encoding("lossless WebP", None, 1600, 640, True, True, 1.2),
    Encoding("WebP of quality 90", 90, 1600, 640, True, True, 0.2),
    Encoding("WebP of quality 85; details at most 640 pixels a side", 85, 1600, 640, True, False, 0.08),
    Encoding("WebP of quality 75; details at most 480 pixels a side", 75, 1600, 480, True, False, 0.05),
    Encoding("WebP of quality 75, at most 1024 pixels a side; details at most 480", 75, 1024, 480, False, False, 0),
)


@dataclass(frozen=True)
class Picture:
    """Files of a picture, in the folder of its image, and the size of the full one in pixels."""

    shown: str
    full: str | None
    width: int
    height: int


class PictureFolder:
    """The pictures of an image, in one encoding."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self.path = path
        self.encoding = encoding

    def bytes(self) -> int:
        """Return the size of all its files."""
        return sum(file.stat().st_size for file in self.path.iterdir())

    def comparison(self, name: str, image: Image.Image) -> Picture:
        """Write a picture to compare."""
        return self._write(name, image, self.encoding.shown, self.encoding.full)

    def detail(self, name: str, image: Image.Image) -> Picture:
        """Write a picture of a weight, a difference or an error."""
        return self._write(name, image, self.encoding.shown_details, self.encoding.full_details)

    def exact(self, name: str, image: Image.Image) -> Picture:
        """Write a small picture without a loss."""
        return Picture(self._save(image, name, quality=None), None, *image.size)

    def _write(self, name: str, image: Image.Image, side: int, keep_full: bool) -> Picture:
        quality = self.encoding.quality
        if max(image.size) <= side:
            return Picture(self._save(image, name, quality), None, *image.size)
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        shown = self._save(small, f"{name}-small", quality or _QUALITY)
        return Picture(shown, self._save(image, name, quality) if keep_full else None, *image.size)

    def _save(self, image: Image.Image, name: str, quality: int | None) -> str:
        kind = "webp" if max(image.size) <= _WEBP_SIDE else "png"
        settings: dict[str, Any] = {"quality": quality, "method": 4}
        if quality is None:
            settings = {"lossless": True, "quality": 0, "method": 1}  # fast, and a tenth larger than the smallest
        with atomic_write(self.path / f"{name}.{kind}") as partial:
            image.save(partial, format=kind.upper(), **settings if kind == "webp" else {})
        return f"{name}.{kind}"


def candidates(pixels: int, pictures: int, limit: float) -> Iterator[Encoding]:
    """Yield the encodings in which pictures of full size may fit into a limit of bytes, the best one first."""
    *better, smallest = ENCODINGS
    for encoding in better:
        if pixels * pictures * encoding.bytes_per_pixel <= limit:
            yield encoding
    yield smallest
