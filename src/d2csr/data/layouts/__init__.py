"""Finding the LR/HR pairs of the known data sets in a folder, without a list."""

from __future__ import annotations

from pathlib import Path

from d2csr.data.layouts.d2crealsr import find_d2crealsr
from d2csr.data.layouts.drealsr import find_drealsr
from d2csr.data.layouts.pairs import find_pairs
from d2csr.data.layouts.realsr import find_realsr
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError, DataError

__all__ = ["DATASETS", "discover"]

DATASETS = {"realsr": find_realsr, "drealsr": find_drealsr, "d2crealsr": find_d2crealsr, "pairs": find_pairs}


def discover(dataset: str, root: str | Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of a data set.

    Names are looked at, and the headers of a few images; no image is decoded.

    Args:
        dataset: ``realsr``, ``drealsr``, ``d2crealsr``, or ``pairs`` for any two folders, one HR and one LR.
        root: the data set's own folder, or the one that holds it.
        scale: the upscaling factor.

    Returns:
        The pairs under ``train`` and ``test``; a split that is not there has no key, one that is has at least one pair.
        The order is always the same, numbers counting as numbers.

    Raises:
        ConfigError: there is no such data set, or it has no such scale.
        DataError: the folder is missing, holds no pairs of that scale, or holds images that do not pair.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"no data set {dataset!r}: choose one of {', '.join(DATASETS)}.")
    root = Path(root).expanduser()
    if not root.exists():
        raise DataError(f"{root}: no such folder. Name the folder of the data set {dataset!r}.")
    if not root.is_dir():
        raise DataError(f"{root}: is a file, not a folder. Name the folder of the data set {dataset!r}.")
    return DATASETS[dataset](root, scale)
