"""Finding the folders of a data set by the layouts in which it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from d2csr.errors import DataError

SPLITS = ("train", "test")
SCALES = (2, 3, 4, 8)
_SHOWN = 20  # folders that a message lists


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Paths are matched level by level, in upper or lower case. ``{split}`` and ``{scale}`` are filled in, ``|`` separates
    alternatives, ``*`` stands for any text and ``.`` for the folder itself. A layout without ``{split}`` holds test
    images, and counts only where no split is found.

    Attributes:
        folder: from the data set's folder to the folder, or folders, that hold pairs.
        hr: from there to the HR images.
        lr: from there to the LR images; the same as ``hr`` where both lie in one folder.
    """

    folder: str
    hr: str
    lr: str

    @property
    def has_split(self) -> bool:
        """Whether the layout tells training images from test images."""
        return "{split}" in f"{self.folder}/{self.hr}"

    def filled(self, split: str, scale: int) -> Layout:
        """The layout with the split and the scale in their places."""
        return Layout(*(path.format(split=split, scale=scale) for path in (self.folder, self.hr, self.lr)))


@dataclass(frozen=True)
class Place:
    """A folder that holds pairs, and the folders of their LR and HR images, which may be one."""

    folder: Path
    lr: Path
    hr: Path


def find_places(root: Path, layouts: Sequence[Layout], scale: int, homes: Sequence[str] = ()) -> dict[str, list[Place]]:
    """Find where a data set keeps its pairs of one scale.

    Args:
        root: the data set's own folder, or the one that holds it.
        layouts: what to look for, first the one to prefer.
        scale: the upscaling factor.
        homes: names of the data set's own folder, first the one to prefer.

    Returns:
        The places of each split that is there, the folders in natural order.

    Raises:
        DataError: nothing fits any layout, or an HR folder has no LR folder beside it (or the reverse, or several).
    """
    with_split = [layout for layout in layouts if layout.has_split]
    without_split = [layout for layout in layouts if not layout.has_split]
    for home in _homes(root, homes):
        found = {split: _places(home, with_split, split, scale) for split in SPLITS}
        if not any(found.values()):
            found = {"test": _places(home, without_split, "test", scale)}
        if any(found.values()):
            return {split: places for split, places in found.items() if places}
    raise DataError(_nothing_found(root, layouts, scale, homes))


def entries(folder: Path) -> list[Path]:
    """What a folder holds, hidden things left out.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error}).") from None


def _places(home: Path, layouts: Sequence[Layout], split: str, scale: int) -> list[Place]:
    """The places of the first layout that is there."""
    for layout in layouts:
        filled = layout.filled(split, scale)
        places = [place for folder in _matching(home, filled.folder) if (place := _place(folder, filled))]
        if places:
            return places
    return []


def _place(folder: Path, layout: Layout) -> Place | None:
    hr, lr = _matching(folder, layout.hr), _matching(folder, layout.lr)
    if not hr and not lr:
        return None
    if len(hr) == len(lr) == 1:
        return Place(folder, lr[0], hr[0])
    # Half a pair of folders is a broken copy: passing over it would make a split vanish without a word.
    raise DataError(
        f"{folder}: expected one folder of HR images ({layout.hr}) and one of LR images ({layout.lr}), "
        f"found HR: {_names(hr, folder)}; LR: {_names(lr, folder)}. Complete the pair, or move the other folders away."
    )


def _homes(root: Path, names: Sequence[str]) -> list[Path]:
    return [root, *(folder for name in names for folder in _matching(root, name))]


def _matching(root: Path, path: str) -> list[Path]:
    """The folders under ``root`` that a layout's path leads to."""
    found = [root]
    for level in path.lower().split("/"):
        if level != ".":
            wanted = level.split("|")
            found = [
                child
                for folder in found
                for child in _subfolders(folder)
                if any(fnmatchcase(child.name.lower(), pattern) for pattern in wanted)
            ]
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in entries(folder) if entry.is_dir())


def _nothing_found(root: Path, layouts: Sequence[Layout], scale: int, homes: Sequence[str]) -> str:
    there = [
        other
        for other in SCALES
        if any(
            _matching(home, f"{filled.folder}/{filled.hr}")
            for home in _homes(root, homes)
            for split in SPLITS
            for filled in (layout.filled(split, other) for layout in layouts)
        )
    ]
    if there:
        return f"{root}: holds no images of scale {scale}; the scales that are there: {', '.join(map(str, there))}."
    looked_for = []
    for layout in layouts:
        filled = layout.filled("{train,test}", scale)
        hr, lr = (PurePosixPath(filled.folder, path) for path in (filled.hr, filled.lr))
        looked_for.append(f"  {hr}" if hr == lr else f"  {hr} with {lr}")
    levels = [folder for child in _subfolders(root) for folder in (child, *_subfolders(child))]
    return "\n".join(
        [
            f"{root}: no pairs of scale {scale} found. Looked for these folders in it"
            + (f" or in its folder {', '.join(homes)}:" if homes else ":"),
            *looked_for,
            f"Found in it: {_names(levels, root)}.",
            "Name the data set's own folder; or arrange your pairs as {train,test}/{HR,LR} and use the data set "
            "'pairs'; or write a list, one 'LR_path HR_path' a line.",
        ]
    )


def _names(folders: Sequence[Path], root: Path) -> str:
    names = ", ".join(str(folder.relative_to(root)) for folder in folders[:_SHOWN])
    more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
    return names + more or "no folder"
