"""Discovery of the LR/HR pairs in the folder of a data set."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from d2csr.checks import one_of
from d2csr.data.images import SUFFIXES, read_size
from d2csr.data.layouts import LAYOUTS, Layout
from d2csr.data.lists import ImagePair
from d2csr.errors import ConfigError, DataError, first_of
from d2csr.files import require_folder

log = logging.getLogger(__name__)

_WRITE_A_LIST = "write a list, one 'LR_path HR_path' a line."

_Place = tuple[Path, Path, Path]  # a folder that holds pairs, and the folders of its LR and HR images: may be the same


def discover(dataset: str, root: str | Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of a data set by names and the headers of a few images.

    ``dataset`` is ``realsr``, ``drealsr``, ``d2crealsr``, ``pairs`` (any two folders, HR and LR), or a registered one;
    ``root`` is its own folder, or the one that holds it. Returns the pairs under ``train`` and ``test``, in natural
    order; a split without pairs has no key.

    Raises:
        ConfigError: there is no such data set, or it has no such scale.
        DataError: the folder is missing, holds no pairs of that scale, or holds images that do not pair.
    """
    if dataset not in LAYOUTS:
        known = f"choose one of {', '.join(LAYOUTS)}"
        raise ConfigError(f"no data set {dataset!r}: {known}, or register your own by plugins=[my_module].")
    layout, root = LAYOUTS[dataset], require_root(root, dataset)
    one_of(f"scale of {dataset}", scale, layout.scales)
    try:
        found = _find_places(root, layout, scale)
        return {key: [pair for place in found[key] for pair in _pairs(*place, layout, scale)] for key in found}
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None


def require_root(root: str | Path, dataset: str) -> Path:
    """Return the folder of a data set with ``~`` expanded; raise a DataError if it is missing or a file."""
    return require_folder(root, f"Name the folder of the data set {dataset!r}.")


def _find_places(root: Path, layout: Layout, scale: int) -> dict[str, list[_Place]]:
    """Return the folders of each split, in the first home that has any."""
    for home in [root, *(folder for name in layout.homes for folder in _matching(root, name))]:
        for splits, named in ((("train", "test"), True), (("test",), False)):
            alternatives = [folders for folders in layout.folders if ("{split}" in "".join(folders)) == named]
            found = {split: places for split in splits if (places := _places(home, alternatives, split, scale))}
            if found:
                return found
    raise DataError(_nothing_found(root, layout, scale))


def _places(home: Path, alternatives: Sequence[Sequence[str]], split: str, scale: int) -> list[_Place]:
    """Return the folders of the first alternative that is there."""
    for folders in alternatives:
        folder, hr, lr = _filled(folders, split, scale)
        places = []
        for found in _matching(home, folder):
            hr_folders, lr_folders = _matching(found, hr), _matching(found, lr)
            if len(hr_folders) == len(lr_folders) == 1:
                places.append((found, lr_folders[0], hr_folders[0]))
            elif hr_folders or lr_folders:  # a single one is an incomplete copy: ignoring it would lose a split
                raise DataError(
                    f"{found}: expected one folder of HR images ({hr}) and one of LR images ({lr}), found "
                    f"HR: {_names(hr_folders, found)}; LR: {_names(lr_folders, found)}. Complete the pair, or move the "
                    "other folders away."
                )
        if places:
            return places
    return []


def _filled(folders: Sequence[str], split: str, scale: int) -> list[str]:
    return [path.replace("{split}", split).replace("{scale}", str(scale)) for path in folders]


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
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir())


def _nothing_found(root: Path, layout: Layout, scale: int) -> str:
    searched = ["  {}: HR in {}, LR in {}".format(*_filled(names, "{train,test}", scale)) for names in layout.folders]
    levels = [folder for child in _subfolders(root) for folder in (child, *_subfolders(child))]
    or_home = f" or in its folder {', '.join(layout.homes)}" if layout.homes else ""
    return (
        f"{root}: no pairs of scale {scale} found. Looked for these folders in it{or_home}:\n"
        + "\n".join(searched)
        + f"\nFound in it: {_names(levels, root)}.\nName the data set's own folder; or arrange your pairs as "
        f"{{train,test}}/{{HR,LR}} and use the data set 'pairs'; or {_WRITE_A_LIST}"
    )


def _names(folders: Sequence[Path], root: Path) -> str:
    return ", ".join(first_of([str(folder.relative_to(root)) for folder in folders])) or "no folder"


def _pairs(folder: Path, lr_folder: Path, hr_folder: Path, layout: Layout, scale: int) -> list[ImagePair]:
    lr, hr = _images(lr_folder), _images(hr_folder)
    if not lr and not hr:
        raise DataError(f"{hr_folder}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    if lr_folder == hr_folder:
        is_hr = re.compile(layout.hr_names, re.IGNORECASE).fullmatch
        lr, hr = [path for path in lr if not is_hr(path.stem)], [path for path in hr if is_hr(path.stem)]
    paired = _pair_by_name(lr, hr, layout.names.replace("{scale}", str(scale)))
    by_order = layout.pair_by_order and not paired and len(lr) == len(hr)
    if by_order:
        paired = list(zip(lr, hr, strict=True))
        log.warning(
            "%s: no LR name agrees with an HR name, so the %d images were paired in their order, %s with %s and so on. "
            "Look at a few of them.",
            *(folder, len(lr), lr[0].name, hr[0].name),
        )
    elif len(paired) < max(len(lr), len(hr)):
        used = {path for pair in paired for path in pair}
        lr_alone, hr_alone = ([path.name for path in images if path not in used] for images in (lr, hr))
        raise DataError(
            f"{folder}: {_some(lr_alone)} of {len(lr)} LR image(s) without HR, "
            f"{_some(hr_alone)} of {len(hr)} HR image(s) without LR.\n"
            f"Images pair by name, {layout.example.replace('{scale}', str(scale))}. Complete the pairs, remove what is "
            f"too much, or {_WRITE_A_LIST}"
        )
    pairs = [ImagePair(*paths, origin=str(folder)) for paths in paired]
    _check_sizes(pairs, layout, scale, by_order)
    return pairs


def _pair_by_name(lr: Sequence[Path], hr: Sequence[Path], names: str) -> list[tuple[Path, Path]]:
    """Return LR and HR of each scene that has both, in the order of HR."""
    if {path.stem for path in lr} == {path.stem for path in hr}:
        names = "(.*)"
    lr_of, hr_of = ({_scene(path, names): path for path in images} for images in (lr, hr))
    return [(lr_of[scene], path) for scene, path in hr_of.items() if scene in lr_of]


def _scene(path: Path, names: str) -> Hashable:
    match = re.fullmatch(names, path.stem, re.IGNORECASE)
    return match.groups() if match else path.stem


def _check_sizes(pairs: Sequence[ImagePair], layout: Layout, scale: int, by_order: bool) -> None:
    """Check the sizes of three pairs roughly, or of all that were paired by order, to one LR pixel."""
    problems = []
    for pair in pairs if by_order else pairs[:3]:  # reading all headers is slow on a network disk
        try:
            lr, hr = read_size(pair.lr), read_size(pair.hr)
        except DataError as error:  # the check before the training names all images that are broken
            problems.append(error)
            continue
        if lr == hr and layout.equal_sizes:
            raise DataError(f"{pair.origin}: {layout.equal_sizes} ({pair.lr.name} is as large as {pair.hr.name}).")
        limits = [scale if by_order else small / 2 for small in lr]  # RealSR's sizes are no exact multiples
        if any(abs(big - scale * small) > most for small, big, most in zip(lr, hr, limits, strict=True)):
            advice = "Are LR and HR swapped, or is it another scale?"
            if by_order:
                advice = f"No names agree: give LR and HR of a scene the same one, or {_WRITE_A_LIST}"
            raise DataError(
                f"{pair.lr} ({lr[1]}×{lr[0]}) with {pair.hr} ({hr[1]}×{hr[0]}): "
                f"HR is {hr[1] / lr[1]:.4g}×{hr[0] / lr[0]:.4g} times as large, not {scale}. {advice}"
            )
    if problems and len(problems) == len(pairs):
        raise problems[0]


def _images(folder: Path) -> list[Path]:
    return sorted((entry for entry in _entries(folder) if entry.suffix.lower() in SUFFIXES), key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Return a sort key by which ``Canon_2`` comes before ``Canon_10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(first_of(names, 5))})" if names else "0"
