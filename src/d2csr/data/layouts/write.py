"""Writing the lists of a data set that was found in a folder."""

from __future__ import annotations

from pathlib import Path

from d2csr.data.layouts import discover
from d2csr.data.lists import write_list


def write_lists(dataset: str, root: str | Path, scale: int, output: str | Path) -> dict[str, Path]:
    """Find the pairs of a data set and write them as ``{dataset}_x{scale}_train.txt`` and ``…_test.txt``.

    The paths in the lists are absolute, so that the lists can be moved; the images' own names are kept, where they are
    symbolic links too.

    Args:
        dataset: as for :func:`d2csr.data.layouts.discover`.
        root: the data set's folder.
        scale: the upscaling factor.
        output: the folder for the lists; made where it is missing.

    Returns:
        The list of each split that is there.

    Raises:
        ConfigError: there is no such data set, or it has no such scale.
        DataError: the pairs cannot be found, or the lists cannot be written.
    """
    found = discover(dataset, Path(root).expanduser().resolve(), scale)
    folder = Path(output).expanduser()
    return {split: write_list(folder / f"{dataset}_x{scale}_{split}.txt", pairs) for split, pairs in found.items()}
