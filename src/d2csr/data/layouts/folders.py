"""Search for the folders of a data set by the patterns of its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from d2csr.checks import SCALES
from d2csr.data.layouts.layout import Folders, Layout
from d2csr.errors import DataError

SPLITS = ("train", "test")
_SHOWN = 20  # folders in a message


@dataclass(frozen=True)
class PairFolder:
    """A folder with pairs, and the folders of its LR and HR images, which may be one."""

    folder: Path
    lr: Path
    hr: Path


def find_folders(root: Path, layout: Layout, scale: int) -> dict[str, list[PairFolder]]:
    """Find the folders with the pairs of one scale.

    Args:
        root: the data set's own folder, or its parent folder.
        layout: the data set.
        scale: s.

    Returns:
        The folders of each split that exists, sorted by name.

    Raises:
        DataError: no pattern matches, or an HR folder has no LR folder beside it (or the reverse, or several).
    """
    with_split = [folders for folders in layout.folders if folders.has_split]
    without_split = [folders for folders in layout.folders if not folders.has_split]
    for home in _homes(root, layout):
        found = {split: _pair_folders(home, with_split, split, scale) for split in SPLITS}
        if not any(found.values()):
            found = {"test": _pair_folders(home, without_split, "test", scale)}
        if any(found.values()):
            return {split: folders for split, folders in found.items() if folders}
    raise DataError(_nothing_found(root, layout, scale))


def entries(folder: Path) -> list[Path]:
    """Return the content of a folder without hidden entries.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error}).") from None


def _pair_folders(home: Path, patterns: Sequence[Folders], split: str, scale: int) -> list[PairFolder]:
    """Return the folders that match the first pattern that matches any."""
    for pattern in patterns:
        filled = pattern.fill(split, scale)
        found = [folder for parent in _matching(home, filled.parent) if (folder := _pair_folder(parent, filled))]
        if found:
            return found
    return []


def _pair_folder(parent: Path, pattern: Folders) -> PairFolder | None:
    hr, lr = _matching(parent, pattern.hr), _matching(parent, pattern.lr)
    if not hr and not lr:
        return None
    if len(hr) == len(lr) == 1:
        return PairFolder(parent, lr[0], hr[0])
    # One folder of a pair is an incomplete copy. Ignoring it would hide a whole split.
    raise DataError(
        f"{parent}: expected one folder of HR images ({pattern.hr}) and one of LR images ({pattern.lr}), "
        f"found HR: {_names(hr, parent)}; LR: {_names(lr, parent)}. Complete the pair, or move the other folders away."
    )


def _homes(root: Path, layout: Layout) -> list[Path]:
    return [root, *(folder for name in layout.homes for folder in _matching(root, name))]


def _matching(root: Path, pattern: str) -> list[Path]:
    """Return the folders below ``root`` that match a pattern."""
    found = [root]
    for level in pattern.lower().split("/"):
        if level != ".":
            found = [
                child
                for folder in found
                for child in _subfolders(folder)
                if any(fnmatchcase(child.name.lower(), name) for name in level.split("|"))
            ]
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in entries(folder) if entry.is_dir())


def _nothing_found(root: Path, layout: Layout, scale: int) -> str:
    other_scales = [
        str(other)
        for other in SCALES
        if any(
            _matching(home, f"{filled.parent}/{filled.hr}")
            for home in _homes(root, layout)
            for split in SPLITS
            for filled in (folders.fill(split, other) for folders in layout.folders)
        )
    ]
    if other_scales:
        return f"{root}: holds no images of scale {scale}; the scales that are there: {', '.join(other_scales)}."
    expected = []
    for folders in layout.folders:
        filled = folders.fill("{train,test}", scale)
        hr, lr = (PurePosixPath(filled.parent, path) for path in (filled.hr, filled.lr))
        expected.append(f"  {hr}" if hr == lr else f"  {hr} with {lr}")
    levels = [folder for child in _subfolders(root) for folder in (child, *_subfolders(child))]
    homes = f" or in its folder {', '.join(layout.homes)}" if layout.homes else ""
    return "\n".join(
        [
            f"{root}: no pairs of scale {scale} found. Looked for these folders in it{homes}:",
            *expected,
            f"Found in it: {_names(levels, root)}.",
            "Name the data set's own folder; or arrange your pairs as {train,test}/{HR,LR} and use the data set "
            "'pairs'; or write a list, one 'LR_path HR_path' a line.",
        ]
    )


def _names(folders: Sequence[Path], root: Path) -> str:
    names = ", ".join(str(folder.relative_to(root)) for folder in folders[:_SHOWN])
    more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
    return names + more or "no folder"
