"""DRealSR (Wei et al., ECCV 2020): scales 2, 3 and 4, taken with five cameras.

Test images are whole: HR ``sony_12_x4.png`` with LR ``sony_12_x1.png``. Training images are patches cut beforehand: HR
``sony_12_x4_7.png`` with LR ``sony_12_x1_7.png``. LR patches named like their HR patches are read too.
"""

from __future__ import annotations

import re
from pathlib import Path

from d2csr.data.layouts.folders import Layout, Place, find_places
from d2csr.data.layouts.pairing import Naming, check_scale, images_in, pair_by_name
from d2csr.data.lists import ImagePair

HOMES = ("DRealSR",)
LAYOUTS = tuple(
    Layout(folder, "{split}_HR", "{split}_LR")
    for folder in (
        "x{scale}/{split}_x{scale}",
        "x{scale}/{split}_x{scale}/{split}_x{scale}",
        "{split}_x{scale}",
        "{split}_x{scale}/{split}_x{scale}",
    )
)


def find_drealsr(root: Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of DRealSR, by name only: sorted, LR and HR names do not always come in the same order.

    Args:
        root: the data set's own folder, or the one that holds it.
        scale: 2, 3 or 4.

    Returns:
        The pairs of each split that is there.

    Raises:
        DataError: no pairs of that scale, or images without a counterpart.
    """
    places = find_places(root, LAYOUTS, scale, HOMES)
    return {split: [pair for place in found for pair in _pairs(place, scale)] for split, found in places.items()}


def _pairs(place: Place, scale: int) -> list[ImagePair]:
    # The patch number stays a part of its own: patch 1 of scene "a" is not scene "a_1".
    naming = Naming(
        re.compile(rf"(.+?)(?:_x(?:1|{scale})(_\d+)?)?", re.IGNORECASE),
        f"HR sony_12_x{scale}.png with LR sony_12_x1.png, HR sony_12_x{scale}_7.png with LR sony_12_x1_7.png",
    )
    pairs = pair_by_name(place, images_in(place.lr), images_in(place.hr), naming)
    check_scale(pairs, scale)
    return pairs
