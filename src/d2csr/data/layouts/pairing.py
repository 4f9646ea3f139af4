"""Which LR image belongs to which HR image."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from d2csr.data.layouts.folders import Place, entries
from d2csr.data.lists import ImagePair
from d2csr.errors import DataError

_log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"}
_WHOLE = re.compile("(.*)")
_SHOWN = 5  # files that a message names


@dataclass(frozen=True)
class Naming:
    """How a data set names the two images of a scene.

    Attributes:
        pattern: matches every name without its extension; its groups are what the two names share.
        example: the two names of a scene, for messages.
    """

    pattern: re.Pattern[str]
    example: str

    def scene(self, path: Path) -> Hashable:
        """What the names of a scene's two images have in common."""
        match = self.pattern.fullmatch(path.stem)
        return match.groups() if match else path.stem


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """The sort key of a name whose numbers count as numbers: ``Canon_2`` comes before ``Canon_10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in natural order; hidden files and files of other kinds are left out.

    Raises:
        DataError: the folder cannot be read.
    """
    return sorted((entry for entry in entries(folder) if entry.suffix.lower() in SUFFIXES), key=natural_key)


def pair_by_name(place: Place, lr: Sequence[Path], hr: Sequence[Path], naming: Naming) -> list[ImagePair]:
    """Pair images whose names tell the same scene.

    Args:
        place: where the images were found, for the pairs' origin and for messages.
        lr: the LR images.
        hr: the HR images.
        naming: which names belong together; where LR and HR have the same names, those do.

    Returns:
        The pairs, in the order of the HR images.

    Raises:
        DataError: there is no image, an image has no counterpart, or two images claim the same scene.
    """
    if not lr and not hr:
        raise DataError(f"{place.hr}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    if {path.stem for path in lr} == {path.stem for path in hr}:
        naming = Naming(_WHOLE, naming.example)
    lr_of, hr_of = _by_scene(lr, naming), _by_scene(hr, naming)
    lr_alone = [path.name for scene, path in lr_of.items() if scene not in hr_of]
    hr_alone = [path.name for scene, path in hr_of.items() if scene not in lr_of]
    if lr_alone or hr_alone:
        raise DataError(
            f"{place.folder}: {_some(lr_alone)} of {len(lr)} LR image(s) without HR, "
            f"{_some(hr_alone)} of {len(hr)} HR image(s) without LR.\n"
            f"Images pair by name, {naming.example}. Complete the pairs, remove what is too much, or write a list, "
            "one 'LR_path HR_path' a line."
        )
    return [ImagePair(lr_of[scene], path, str(place.folder)) for scene, path in hr_of.items()]


def pair_tolerantly(place: Place, naming: Naming, scale: int) -> list[ImagePair]:
    """Pair the images of two folders by name or, where no name agrees with any other, by their order.

    Order alone proves nothing, so every pair's sizes have to fit, and a warning says what was done.

    Returns:
        The pairs, in natural order of the HR images.

    Raises:
        DataError: the images cannot be paired, or the sizes of a pair do not fit the scale.
    """
    lr, hr = images_in(place.lr), images_in(place.hr)
    scenes_in_common = {naming.scene(path) for path in lr} & {naming.scene(path) for path in hr}
    if scenes_in_common or len(lr) != len(hr) or not lr:
        pairs = pair_by_name(place, lr, hr, naming)
        check_scale(pairs, scale)
        return pairs
    pairs = [ImagePair(*files, origin=str(place.folder)) for files in zip(lr, hr, strict=True)]
    for pair in pairs:
        _check_fit(pair, scale)
    _log.warning(
        "%s: no LR name agrees with an HR name, so the %d images were paired in their order, %s with %s and so on. "
        "Look at a few of them.",
        place.folder,
        len(pairs),
        pairs[0].lr.name,
        pairs[0].hr.name,
    )
    return pairs


def first_sizes(pairs: Sequence[ImagePair]) -> list[tuple[ImagePair, tuple[int, int], tuple[int, int]]]:
    """Return the first three pairs that can be read, with the width and height of LR and of HR.

    Reading every header of a large set would take long on a network disk. Broken images are passed over: what is used
    is checked as a whole later, with every problem named at once.

    Raises:
        DataError: no pair can be read.
    """
    found = []
    failure: DataError | None = None
    for pair in pairs:
        try:
            found.append((pair, image_size(pair.lr), image_size(pair.hr)))
        except DataError as error:
            failure = failure or error
        if len(found) == 3:
            break
    if failure and not found:
        raise failure
    return found


def check_scale(pairs: Sequence[ImagePair], scale: int) -> None:
    """Check the sizes of the first pairs.

    The ratio may be off by half, for RealSR's sizes are not all multiples of the scale.

    Raises:
        DataError: HR is not ``scale`` times as large as LR, or no pair can be read.
    """
    for pair, lr, hr in first_sizes(pairs):
        if any(round(large / small) != scale for small, large in zip(lr, hr, strict=True)):
            raise DataError(_misfit(pair, lr, hr, scale) + " Are LR and HR swapped, or is it another scale?")


def image_size(path: Path) -> tuple[int, int]:
    """The width and height of an image, from its header.

    Raises:
        DataError: the file is no image that Pillow can read.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise DataError(f"{path}: cannot be read as an image ({error}).") from None


def _check_fit(pair: ImagePair, scale: int) -> None:
    """Refuse a pair whose sizes differ by more than one LR pixel: here the sizes are all there is to tell by."""
    lr, hr = image_size(pair.lr), image_size(pair.hr)
    if any(abs(large - scale * small) > scale for small, large in zip(lr, hr, strict=True)):
        raise DataError(
            f"{pair.origin}: no LR name agrees with an HR name, and paired in their order the sizes do not fit. "
            f"The first that does not is {_misfit(pair, lr, hr, scale)}\n"
            "Give the two images of a scene the same name, or write a list, one 'LR_path HR_path' a line."
        )


def _misfit(pair: ImagePair, lr: tuple[int, int], hr: tuple[int, int], scale: int) -> str:
    return (
        f"{pair.lr} ({lr[0]}×{lr[1]}) with {pair.hr} ({hr[0]}×{hr[1]}): "
        f"HR is {hr[0] / lr[0]:.4g}×{hr[1] / lr[1]:.4g} times as large, not {scale}."
    )


def _by_scene(paths: Sequence[Path], naming: Naming) -> dict[Hashable, Path]:
    found: dict[Hashable, Path] = {}
    for path in paths:
        other = found.setdefault(naming.scene(path), path)
        if other is not path:
            raise DataError(f"{path.parent}: {other.name} and {path.name} are of one scene; move one of them away.")
    return found


def _some(names: Sequence[str]) -> str:
    if not names:
        return "0"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"
