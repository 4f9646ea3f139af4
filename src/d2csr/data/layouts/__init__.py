"""Data sets on disk: the LR/HR pairs of a folder, found by the patterns of a layout."""

from __future__ import annotations

from pathlib import Path

from d2csr.data.layouts.folders import find_folders
from d2csr.data.layouts.known import KNOWN
from d2csr.data.layouts.layout import Folders, Layout
from d2csr.data.layouts.pairing import pair_images
from d2csr.data.lists import ImagePair, write_list
from d2csr.errors import ConfigError, DataError

__all__ = ["LAYOUTS", "Folders", "Layout", "discover", "register_layout", "write_lists"]

LAYOUTS: dict[str, Layout] = dict(KNOWN)


def register_layout(name: str, layout: Layout) -> None:
    """Register the layout of a data set under a name, for ``data.name``, ``data.root`` and ``d2csr-lists``.

    Raises:
        ConfigError: the name is that of another layout.
    """
    if LAYOUTS.setdefault(name, layout) != layout:
        raise ConfigError(f"the data set {name!r} is known already; choose another name for the layout.")


def discover(dataset: str, root: str | Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of a data set.

    Only names and the headers of a few images are read.

    Args:
        dataset: the name of a layout: ``realsr``, ``drealsr``, ``d2crealsr``, ``pairs``, or a registered one.
        root: the data set's own folder, or its parent folder.
        scale: s.

    Returns:
        The pairs under ``train`` and ``test``. A split that does not exist has no key. The order is always the same:
        numbers in names are sorted as numbers.

    Raises:
        ConfigError: there is no such data set, or it does not have this scale.
        DataError: the folder is missing, holds no pairs of that scale, or holds images that do not pair.
    """
    if dataset not in LAYOUTS:
        raise ConfigError(f"no data set {dataset!r}: choose one of {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[dataset]
    if len(layout.scales) == 1 and scale not in layout.scales:
        title, only = (*layout.homes, dataset)[0], layout.scales[0]
        raise ConfigError(f"{title} has scale {only} only, not {scale}: set scale={only}, or choose another data set.")
    root = Path(root).expanduser()
    if not root.exists():
        raise DataError(f"{root}: no such folder. Name the folder of the data set {dataset!r}.")
    if not root.is_dir():
        raise DataError(f"{root}: is a file, not a folder. Name the folder of the data set {dataset!r}.")
    return {
        split: [pair for place in places for pair in pair_images(place, layout, scale)]
        for split, places in find_folders(root, layout, scale).items()
    }


def write_lists(dataset: str, root: str | Path, scale: int, output: str | Path) -> dict[str, Path]:
    """Find the pairs of a data set and write them as ``{dataset}_x{scale}_train.txt`` and ``…_test.txt``.

    The paths in the lists are absolute, so the lists can be moved. Symbolic links to images keep their own names.

    Args:
        dataset: the name of a layout.
        root: the data set's folder.
        scale: s.
        output: the folder for the lists; made if it is missing.

    Returns:
        The path of the list of each split that exists.

    Raises:
        ConfigError: there is no such data set, or it does not have this scale.
        DataError: the pairs cannot be found, or the lists cannot be written.
    """
    found = discover(dataset, Path(root).expanduser().resolve(), scale)
    folder = Path(output).expanduser()
    return {split: write_list(folder / f"{dataset}_x{scale}_{split}.txt", pairs) for split, pairs in found.items()}
