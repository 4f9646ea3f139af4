"""Discovery of the LR/HR pairs in the folder of a data set."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath

from d2csr.checks import SCALES
from d2csr.data.images import SUFFIXES, read_size
from d2csr.data.layouts import LAYOUTS, Layout
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError, DataError
from d2csr.files import require_folder

log = logging.getLogger(__name__)

SPLITS = ("train", "test")

_Place = tuple[Path, Path, Path]  # a folder that holds pairs, and the folders of its LR and HR images: may be the same


def discover(dataset: str, root: str | Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of a data set by names and the headers of a few images.

    Args:
        dataset: ``realsr``, ``drealsr``, ``d2crealsr``, ``pairs`` (any two folders, HR and LR), or a registered one.
        root: the data set's own folder, or the one that holds it.
        scale: the upscaling factor.

    Returns:
        The pairs under ``train`` and ``test``, in natural order; a split without pairs has no key.

    Raises:
        ConfigError: there is no such data set, or it has no such scale.
        DataError: the folder is missing, holds no pairs of that scale, or holds images that do not pair.
    """
    if dataset not in LAYOUTS:
        raise ConfigError(
            f"no data set {dataset!r}: choose one of {', '.join(LAYOUTS)}. Name the module that registers a data set "
            "of your own by plugins=[my_module]."
        )
    layout, root = LAYOUTS[dataset], require_root(root, dataset)
    if scale not in layout.scales:
        title = layout.homes[0] if layout.homes else dataset
        scales = f"scale{'s' * (len(layout.scales) > 1)} {', '.join(map(str, layout.scales))}"
        raise ConfigError(
            f"{title} has {scales} only, not {scale}. Choose another data set, or train or evaluate at another scale."
        )
    places = _find_places(root, layout, scale)
    return {
        split: [pair for place in found for pair in _pairs(*place, layout, scale)] for split, found in places.items()
    }


def require_root(root: str | Path, dataset: str) -> Path:
    """Return the folder of a data set with ``~`` expanded; raise a DataError if it is missing or a file."""
    return require_folder(root, f"Name the folder of the data set {dataset!r}.")


# Folders.


def _find_places(root: Path, layout: Layout, scale: int) -> dict[str, list[_Place]]:
    """Return the folders of each split, in the first home that has any."""
    with_split = [folders for folders in layout.folders if "{split}" in "".join(folders)]
    without_split = [folders for folders in layout.folders if folders not in with_split]
    for home in _homes(root, layout):
        for alternatives, splits in ((with_split, SPLITS), (without_split, ("test",))):
            found = {split: _places(home, alternatives, split, scale) for split in splits}
            if any(found.values()):
                return {split: places for split, places in found.items() if places}
    raise DataError(_nothing_found(root, layout, scale))


def _places(home: Path, alternatives: Sequence[Sequence[str]], split: str, scale: int) -> list[_Place]:
    for folders in alternatives:
        folder, hr, lr = _filled(folders, split, scale)
        places = [place for found in _matching(home, folder) if (place := _place(found, hr, lr))]
        if places:
            return places
    return []


def _place(folder: Path, hr: str, lr: str) -> _Place | None:
    hr_folders, lr_folders = _matching(folder, hr), _matching(folder, lr)
    if not hr_folders and not lr_folders:
        return None
    if len(hr_folders) == len(lr_folders) == 1:
        return folder, lr_folders[0], hr_folders[0]
    # A single folder is an incomplete copy. Ignoring it would lose a split silently.
    raise DataError(
        f"{folder}: expected one folder of HR images ({hr}) and one of LR images ({lr}), found "
        f"HR: {_names(hr_folders, folder)}; LR: {_names(lr_folders, folder)}. Complete the pair, or move the other "
        "folders away."
    )


def _filled(folders: Sequence[str], split: str, scale: int) -> list[str]:
    return [path.replace("{split}", split).replace("{scale}", str(scale)) for path in folders]


def _homes(root: Path, layout: Layout) -> list[Path]:
    return [root, *(folder for name in layout.homes for folder in _matching(root, name))]


def _matching(root: Path, path: str) -> list[Path]:
    """Return the folders under ``root`` that match a path of a layout."""
    found = [root]
    for level in path.lower().split("/"):
        if level != ".":
            patterns = level.split("|")
            children = [child for folder in found for child in _subfolders(folder)]
            found = [child for child in children if any(fnmatchcase(child.name.lower(), wild) for wild in patterns)]
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error}).") from None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir())


def _nothing_found(root: Path, layout: Layout, scale: int) -> str:
    def present_at(other: int) -> bool:
        filled = [_filled(folders, split, other) for folders in layout.folders for split in SPLITS]
        return any(_matching(home, f"{folder}/{hr}") for home in _homes(root, layout) for folder, hr, _ in filled)

    if present := [str(other) for other in SCALES if present_at(other)]:
        return f"{root}: holds no images of scale {scale}; the scales that are there: {', '.join(present)}."
    searched = []
    for folders in layout.folders:
        folder, *below = _filled(folders, "{train,test}", scale)
        hr, lr = (PurePosixPath(folder, path) for path in below)
        searched.append(f"  {hr}" if hr == lr else f"  {hr} with {lr}")
    levels = [folder for child in _subfolders(root) for folder in (child, *_subfolders(child))]
    or_home = f" or in its folder {', '.join(layout.homes)}" if layout.homes else ""
    return (
        f"{root}: no pairs of scale {scale} found. Looked for these folders in it{or_home}:\n"
        + "\n".join(searched)
        + f"\nFound in it: {_names(levels, root)}.\nName the data set's own folder; or arrange your pairs as "
        "{train,test}/{HR,LR} and use the data set 'pairs'; or write a list, one 'LR_path HR_path' a line."
    )


def _names(folders: Sequence[Path], root: Path) -> str:
    return _first([str(folder.relative_to(root)) for folder in folders]) or "no folder"


def _first(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# Pairs.


def _pairs(folder: Path, lr_folder: Path, hr_folder: Path, layout: Layout, scale: int) -> list[ImagePair]:
    lr, hr = _images(lr_folder), _images(hr_folder)
    if not lr and not hr:
        raise DataError(f"{hr_folder}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    if lr_folder == hr_folder:
        is_hr = re.compile(layout.hr_names, re.IGNORECASE).fullmatch
        lr, hr = [path for path in lr if not is_hr(path.stem)], [path for path in hr if is_hr(path.stem)]
    names = re.compile(layout.names.replace("{scale}", str(scale)), re.IGNORECASE)
    in_common = {_scene(path, names) for path in lr} & {_scene(path, names) for path in hr}
    if layout.pair_by_order and not in_common and lr and len(lr) == len(hr):
        return _pair_by_order(folder, lr, hr, scale)
    pairs = _pair_by_name(folder, lr, hr, names, layout.example.replace("{scale}", str(scale)))
    _check_sizes(pairs, layout, scale)
    return pairs


def _pair_by_name(
    folder: Path, lr: Sequence[Path], hr: Sequence[Path], names: re.Pattern[str], example: str
) -> list[ImagePair]:
    if {path.stem for path in lr} == {path.stem for path in hr}:
        names = re.compile("(.*)")
    lr_of, hr_of = _by_scene(lr, names), _by_scene(hr, names)
    lr_alone = [path.name for scene, path in lr_of.items() if scene not in hr_of]
    hr_alone = [path.name for scene, path in hr_of.items() if scene not in lr_of]
    if lr_alone or hr_alone:
        raise DataError(
            f"{folder}: {_some(lr_alone)} of {len(lr)} LR image(s) without HR, "
            f"{_some(hr_alone)} of {len(hr)} HR image(s) without LR.\n"
            f"Images pair by name, {example}. Complete the pairs, remove what is too much, or write a list, one "
            "'LR_path HR_path' a line."
        )
    return [ImagePair(lr_of[scene], path, str(folder)) for scene, path in hr_of.items()]


def _pair_by_order(folder: Path, lr: Sequence[Path], hr: Sequence[Path], scale: int) -> list[ImagePair]:
    """Return pairs in natural order, if the sizes of each differ from the scale by at most one LR pixel."""
    pairs = [ImagePair(*files, origin=str(folder)) for files in zip(lr, hr, strict=True)]
    for pair in pairs:
        small, large = read_size(pair.lr), read_size(pair.hr)
        if any(abs(big - scale * little) > scale for little, big in zip(small, large, strict=True)):
            raise DataError(
                f"{pair.origin}: no LR name agrees with an HR name, and paired in their order the sizes do not fit. "
                f"The first that does not is {_misfit(pair, small, large, scale)}\n"
                "Give the two images of a scene the same name, or write a list, one 'LR_path HR_path' a line."
            )
    log.warning(
        "%s: no LR name agrees with an HR name, so the %d images were paired in their order, %s with %s and so on. "
        "Look at a few of them.",
        *(folder, len(pairs), lr[0].name, hr[0].name),
    )
    return pairs


def _check_sizes(pairs: Sequence[ImagePair], layout: Layout, scale: int) -> None:
    """Check the sizes of three pairs; ratios are rounded, since RealSR's sizes are no exact multiples."""
    sizes = list(islice(_sizes(pairs), 3))  # reading all headers is slow on a network disk
    if layout.equal_sizes and all(lr == hr for _, lr, hr in sizes):
        pair = sizes[0][0]
        raise DataError(f"{pair.origin}: {layout.equal_sizes} ({pair.lr.name} is as large as {pair.hr.name}).")
    for pair, lr, hr in sizes:
        if any(round(large / small) != scale for small, large in zip(lr, hr, strict=True)):
            raise DataError(_misfit(pair, lr, hr, scale) + " Are LR and HR swapped, or is it another scale?")


def _sizes(pairs: Sequence[ImagePair]) -> Iterator[tuple[ImagePair, tuple[int, int], tuple[int, int]]]:
    """Yield the readable pairs with their sizes; raise the first problem if no pair is readable."""
    failures = []
    for pair in pairs:
        try:
            yield pair, read_size(pair.lr), read_size(pair.hr)
        except DataError as error:
            failures.append(error)
    if failures and len(failures) == len(pairs):
        raise failures[0]


def _misfit(pair: ImagePair, lr: tuple[int, int], hr: tuple[int, int], scale: int) -> str:
    return (
        f"{pair.lr} ({lr[1]}×{lr[0]}) with {pair.hr} ({hr[1]}×{hr[0]}): "
        f"HR is {hr[1] / lr[1]:.4g}×{hr[0] / lr[0]:.4g} times as large, not {scale}."
    )


def _images(folder: Path) -> list[Path]:
    return sorted((entry for entry in _entries(folder) if entry.suffix.lower() in SUFFIXES), key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key by which ``Canon_2`` comes before ``Canon_10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def _scene(path: Path, names: re.Pattern[str]) -> Hashable:
    match = names.fullmatch(path.stem)
    return match.groups() if match else path.stem


def _by_scene(paths: Sequence[Path], names: re.Pattern[str]) -> dict[Hashable, Path]:
    found: dict[Hashable, Path] = {}
    for path in paths:
        other = found.setdefault(_scene(path, names), path)
        if other is not path:
            raise DataError(f"{path.parent}: {other.name} and {path.name} are of one scene; move one of them away.")
    return found


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({_first(names, 5)})" if names else "0"
