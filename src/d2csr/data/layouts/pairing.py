"""Pairing of LR and HR images by their names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from d2csr.data.images import SUFFIXES, read_size
from d2csr.data.layouts.folders import PairFolder, entries
from d2csr.data.layouts.layout import Layout
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError

_log = logging.getLogger(__name__)

_SHOWN = 5  # files in a message
_CHECKED = 3  # pairs whose sizes are read: reading every header of a large set is slow on a network disk

Size = tuple[int, int]


def pair_images(place: PairFolder, layout: Layout, scale: int) -> list[ImagePair]:
    """Pair the images of a folder.

    Args:
        place: where the images are.
        layout: how they are named.
        scale: s.

    Returns:
        The pairs, with the HR names in natural order.

    Raises:
        DataError: there is no image, an image has no counterpart, two have the same scene, or the sizes do not fit.
    """
    lr, hr = _images(place.lr), _images(place.hr)
    if place.lr == place.hr:
        lr, hr = [path for path in lr if not layout.is_hr(path)], [path for path in hr if layout.is_hr(path)]
    if not lr and not hr:
        raise DataError(f"{place.hr}: holds no image ({', '.join(SUFFIXES)}).")

    def scene(path: Path) -> Hashable:
        return path.stem if same_names else layout.scene_of(path, scale)

    same_names = {path.stem for path in lr} == {path.stem for path in hr}
    in_common = {scene(path) for path in lr} & {scene(path) for path in hr}
    if layout.pairs_by_order and not in_common and len(lr) == len(hr):
        return _pair_by_order(place, lr, hr, scale)
    pairs = _pair_by_scene(place, lr, hr, scene, layout.example.replace("{scale}", str(scale)))
    _check_sizes(pairs, layout, scale)
    return pairs


def _images(folder: Path) -> list[Path]:
    return sorted((entry for entry in entries(folder) if entry.suffix.lower() in SUFFIXES), key=_natural_key)


def _natural_key(path: Path) -> tuple[list[str | int], str]:
    """Sort numbers as numbers: ``Canon_2`` before ``Canon_10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def _pair_by_scene(
    place: PairFolder, lr: Sequence[Path], hr: Sequence[Path], scene: Callable[[Path], Hashable], example: str
) -> list[ImagePair]:
    lr_of, hr_of = _by_scene(lr, scene), _by_scene(hr, scene)
    lr_alone = [path.name for key, path in lr_of.items() if key not in hr_of]
    hr_alone = [path.name for key, path in hr_of.items() if key not in lr_of]
    if lr_alone or hr_alone:
        raise DataError(
            f"{place.folder}: {_some(lr_alone)} of {len(lr)} LR image(s) without HR, "
            f"{_some(hr_alone)} of {len(hr)} HR image(s) without LR.\n"
            f"Images pair by name, {example}. Complete the pairs, remove the other images, or write a list, "
            "one 'LR_path HR_path' a line."
        )
    return [ImagePair(lr_of[key], path, str(place.folder)) for key, path in hr_of.items()]


def _by_scene(paths: Sequence[Path], scene: Callable[[Path], Hashable]) -> dict[Hashable, Path]:
    found: dict[Hashable, Path] = {}
    for path in paths:
        other = found.setdefault(scene(path), path)
        if other is not path:
            raise DataError(f"{path.parent}: {other.name} and {path.name} are of one scene; move one of them away.")
    return found


def _pair_by_order(place: PairFolder, lr: Sequence[Path], hr: Sequence[Path], scale: int) -> list[ImagePair]:
    """Pair images by their order. Sizes are the only evidence, so each has to fit within one LR pixel."""
    pairs = [ImagePair(*paths, origin=str(place.folder)) for paths in zip(lr, hr, strict=True)]
    for pair in pairs:
        small, large = read_size(pair.lr), read_size(pair.hr)
        if any(abs(b - scale * a) > scale for a, b in zip(small, large, strict=True)):
            raise DataError(
                f"{pair.origin}: no LR name agrees with an HR name, and paired in their order the sizes do not fit. "
                f"The first that does not is {_misfit(pair, small, large, scale)}\n"
                "Give the two images of a scene the same name, or write a list, one 'LR_path HR_path' a line."
            )
    _log.warning(
        "%s: no LR name agrees with an HR name, so the %d images were paired in their order, %s with %s and so on. "
        "Look at a few of them.",
        *(place.folder, len(pairs), lr[0].name, hr[0].name),
    )
    return pairs


def _check_sizes(pairs: Sequence[ImagePair], layout: Layout, scale: int) -> None:
    """Check the sizes of the first pairs. The ratio may be off by half: not all sizes are multiples of the scale."""
    sizes = _first_sizes(pairs)
    if layout.same_size and all(lr == hr for _, lr, hr in sizes):
        pair = sizes[0][0]
        raise DataError(f"{pair.origin}: looks like {layout.same_size} ({pair.lr.name} is as large as {pair.hr.name}).")
    for pair, lr, hr in sizes:
        if any(round(large / small) != scale for small, large in zip(lr, hr, strict=True)):
            raise DataError(f"{_misfit(pair, lr, hr, scale)} Are LR and HR swapped, or is it another scale?")


def _first_sizes(pairs: Sequence[ImagePair]) -> list[tuple[ImagePair, Size, Size]]:
    """Return the first readable pairs, with height and width of LR and HR. The check of all pairs comes later."""
    found = []
    failure: DataError | None = None
    for pair in pairs:
        try:
            found.append((pair, read_size(pair.lr), read_size(pair.hr)))
        except DataError as error:
            failure = failure or error
        if len(found) == _CHECKED:
            break
    if failure and not found:
        raise failure
    return found


def _misfit(pair: ImagePair, lr: Size, hr: Size, scale: int) -> str:
    return (
        f"{pair.lr} ({lr[1]}×{lr[0]}) with {pair.hr} ({hr[1]}×{hr[0]}): "
        f"HR is {hr[1] / lr[1]:.4g}×{hr[0] / lr[0]:.4g} times as large, not {scale}."
    )


def _some(names: Sequence[str]) -> str:
    if not names:
        return "0"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"
