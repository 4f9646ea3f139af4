"""Crops of an image as a user names them."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2csr.checks import whole_number
from d2csr.errors import ConfigError

_FORM = "must be {name: [x,y,width,height], …}, or a list of [x,y,width,height], in HR pixels"
_COORDINATES = ("x", "y", "width", "height")


@dataclass(frozen=True)
class NamedCrop:
    """A rectangle of HR pixels."""

    name: str
    x: int
    y: int
    width: int
    height: int

    def require_inside(self, width: int, height: int) -> None:
        """Raise a ConfigError if it exceeds an image of this size."""
        if self.x + self.width > width or self.y + self.height > height:
            raise ConfigError(
                f"crops: {self.name}, {self.width}×{self.height} at {self.x},{self.y}, exceeds the image of "
                f"{width}×{height} (width×height in HR pixels)."
            )


def named_crops(value: Any) -> list[NamedCrop]:
    """Return the crops of a setting: a mapping from names, a list of rectangles, or one rectangle.

    Crops without a name are called a, b, c, …; a single one has an empty name.

    Raises:
        ConfigError: it is none of these, empty, or a number is impossible.
    """
    if isinstance(value, list) and value and not any(isinstance(one, list) for one in value):
        value = [value]
    if isinstance(value, list) and len(value) <= len(string.ascii_lowercase):
        value = dict(zip([""] if len(value) == 1 else string.ascii_lowercase, value, strict=False))
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"crops: {_FORM}, got {value!r}.")
    crops = []
    for name, numbers in value.items():
        if not isinstance(numbers, list) or len(numbers) != len(_COORDINATES):
            raise ConfigError(f"crops: {name}: must be [x,y,width,height] in HR pixels, got {numbers!r}.")
        for part, number in zip(_COORDINATES, numbers, strict=True):
            whole_number(f"crops: {name}: {part}", number, 0 if part in "xy" else 1)
        crops.append(NamedCrop(str(name), *numbers))
    return crops
