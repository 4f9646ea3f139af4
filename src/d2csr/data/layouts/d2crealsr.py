"""D2CRealSR (Li et al., ECCV 2022): scale 8 only."""

from __future__ import annotations

from pathlib import Path

from d2csr.data.layouts.folders import Layout, find_places
from d2csr.data.layouts.pairing import pair_tolerantly
from d2csr.data.layouts.pairs import NAMING
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError

HOMES = ("D2CRealSR",)
LAYOUTS = (Layout(".", "{split}_HR", "{split}_LR"),)


def find_d2crealsr(root: Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of D2CRealSR; its names are not documented, so any that can be told apart will do.

    Args:
        root: the data set's own folder, or the one that holds it.
        scale: 8.

    Returns:
        The pairs of each split that is there.

    Raises:
        ConfigError: another scale.
        DataError: no pairs, or images that do not pair.
    """
    if scale != 8:
        raise ConfigError(f"D2CRealSR has scale 8 only, not {scale}: set the scale to 8, or choose another data set.")
    places = find_places(root, LAYOUTS, scale, HOMES)
    return {
        split: [pair for place in found for pair in pair_tolerantly(place, NAMING, scale)]
        for split, found in places.items()
    }
