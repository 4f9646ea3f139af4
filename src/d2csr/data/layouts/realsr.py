"""RealSR (Cai et al., ICCV 2019), version 3: scales 2, 3 and 4, taken with a Canon and a Nikon.

``RealSR(V3)/Canon/Train/4/Canon_001_HR.png`` lies beside its ``Canon_001_LR4.png``; the same HR name recurs under each
scale. Copies with LR and HR in folders of their own are read too.
"""

from __future__ import annotations

import re
from pathlib import Path

from d2csr.data.layouts.folders import Layout, Place, find_places
from d2csr.data.layouts.pairing import Naming, check_scale, first_sizes, images_in, pair_by_name
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError

# The old versions come last: found only where there is no V3, to be refused by name.
HOMES = ("RealSR(V3)", "RealSR_V3", "RealSR", "RealSR(V2)", "RealSR(V1)")
LAYOUTS = (
    Layout("Canon|Nikon/{split}/{scale}", "HR", "LR"),
    Layout("Canon|Nikon/{split}/{scale}", ".", "."),
    Layout(".", "{split}_HR/x{scale}", "{split}_LR/x{scale}"),
    Layout("{split}/x{scale}", "HR", "LR"),
)


def find_realsr(root: Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of RealSR V3.

    Args:
        root: the data set's own folder, or the one that holds it.
        scale: 2, 3 or 4.

    Returns:
        The pairs of each split that is there, Canon before Nikon.

    Raises:
        DataError: no pairs of that scale, images without a counterpart, or version 1 or 2.
    """
    places = find_places(root, LAYOUTS, scale, HOMES)
    return {split: [pair for place in found for pair in _pairs(place, scale)] for split, found in places.items()}


def _pairs(place: Place, scale: int) -> list[ImagePair]:
    naming = Naming(
        re.compile(rf"(.+?)(?:_HR|_LR{scale})?", re.IGNORECASE), f"Canon_001_HR.png with Canon_001_LR{scale}.png"
    )
    lr, hr = images_in(place.lr), images_in(place.hr)
    if place.lr == place.hr:
        lr = [path for path in lr if not _is_hr(path)]
        hr = [path for path in hr if _is_hr(path)]
    pairs = pair_by_name(place, lr, hr, naming)
    _refuse_old_versions(pairs)
    check_scale(pairs, scale)
    return pairs


def _is_hr(path: Path) -> bool:
    return path.stem.lower().endswith("_hr")


def _refuse_old_versions(pairs: list[ImagePair]) -> None:
    if all(lr == hr for _, lr, hr in first_sizes(pairs)):
        raise DataError(
            f"{pairs[0].origin}: looks like RealSR V1/V2, whose LR images are already upsampled to HR size "
            f"({pairs[0].lr.name} is as large as {pairs[0].hr.name}). Use RealSR V3, whose LR images are small."
        )
