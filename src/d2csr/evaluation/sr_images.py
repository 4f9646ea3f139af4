"""SR images that other programs wrote, matched with the test pairs."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d2csr.checks import SCALES
from d2csr.data.batch import to_tensor
from d2csr.data.image_index import check_images
from d2csr.data.images import SUFFIXES, read_rgb, read_size
from d2csr.data.lists import ImagePair, read_sr_list
from d2csr.data.sources import common_size, fits_scale
from d2csr.data.splits import Splits
from d2csr.errors import DataError, first_of
from d2csr.evaluation.panels import panel_name
from d2csr.files import user_path

_KIND = re.compile(r"(?i)([-_. ](LR|HR|GT)[-_. ]?x?\d?|[-_. ]?x\d)$")  # the end of 0001_LR4, 0001_HR, 0001x4
_REST = re.compile(r"(?i)(?![a-z0-9])|x\d")  # what may follow the name of a pair: _SwinIR, -out, x4


@dataclass(frozen=True)
class ListedPairs(Splits):
    """The test pairs in a list of three columns, ``LR_path HR_path SR_path``."""

    path: str | Path = ""

    def pairs(self, split: str) -> list[ImagePair]:
        """Return the pairs of the list, which are for the test."""
        return [pair for pair, _ in read_sr_list(self.path)]


def find_sr_images(source: str | Path, pairs: Sequence[ImagePair], scale: int, cache_dir: Path) -> list[Path]:
    """Return the SR image of each pair, and check their sizes by their headers.

    The source is a folder, whose files have the name of the LR or the HR image of a pair, perhaps with a suffix such as
    ``_x4`` or ``_SwinIR``; or a list of three columns, ``LR_path HR_path SR_path``. ``cache_dir`` is that of the image
    index.

    Raises:
        DataError: pairs without an image, with several, or with one that cannot be read or is of another size. The
            message names them.
    """
    source = user_path(source)
    if source.is_dir():
        found = _in_folder(source, pairs)
    elif source.exists():
        found = _in_list(source, pairs)
    else:
        raise DataError(f"sr: {source}: no such folder or list.")
    uses = Counter(path for images in found for path in images)
    problems = [
        f"{pair.lr.name}: {', '.join(path.name for path in images) or 'none'}"
        + ", which fits other pairs too" * any(uses[path] > 1 for path in images)
        for pair, images in zip(pairs, found, strict=True)
        if [uses[path] for path in images] != [1]
    ]
    _raise(
        f"sr: {source}: {len(problems)} of {len(pairs)} pairs do not have exactly one SR image of their own:",
        problems,
        "Name each image as its LR or HR image, with any suffix, or pass a list of lines 'LR_path HR_path SR_path'.",
    )
    images = [images[0] for images in found]
    problems = list(_misfits(images, pairs, scale, cache_dir))
    _raise(
        f"sr: {source}: {len(problems)} images cannot be used:", problems, "An SR image is as large as its HR image."
    )
    return images


def read_sr_image(path: Path, height: int, width: int) -> Tensor:
    """Return an SR image, 1×3×H×W, RGB in [0, 1], cut at the bottom and right to the size of HR.

    Raises:
        DataError: it cannot be read, or was changed since its header was checked.
    """
    image = read_rgb(path)
    if image.shape[0] < height or image.shape[1] < width:
        raise DataError(f"{path}: was changed during the run.")
    return to_tensor(image[:height, :width]).unsqueeze(0).to(torch.float32) / 255


def find_scale(pairs: Sequence[ImagePair]) -> int:
    """Return the scale of the first pair whose headers can be read.

    Raises:
        DataError: HR is not 2, 3, 4 or 8 times as large as LR, or no pair can be read.
    """
    for pair in pairs:
        try:
            lr, hr = read_size(pair.lr), read_size(pair.hr)
        except DataError:  # the check of all pairs names it
            continue
        scale = min(SCALES, key=lambda s: abs(hr[0] - s * lr[0]) + abs(hr[1] - s * lr[1]))
        if fits_scale(lr, hr, scale):
            return scale
        raise DataError(
            f"{pair.origin}: {pair.lr} is {lr[1]}×{lr[0]} and {pair.hr} is {hr[1]}×{hr[0]} (width×height): no scale of "
            f"{', '.join(map(str, SCALES))} fits. Correct the list."
        )
    raise DataError(f"{pairs[0].origin}: no pair can be read, so the scale is unknown; add scale=….")


def _in_folder(folder: Path, pairs: Sequence[ImagePair]) -> list[list[Path]]:
    """Return the files of each pair: those with its exact name or, without any, those with its name and a suffix."""
    inputs = {os.path.realpath(path) for pair in pairs for path in (pair.lr, pair.hr)}
    owners: dict[str, list[int]] = defaultdict(list)  # pairs by the name of their images
    for number in range(len(pairs)):
        for name in _names(pairs, number):
            owners[name].append(number)
    exact: list[list[Path]] = [[] for _ in pairs]
    suffixed: list[list[Path]] = [[] for _ in pairs]
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or os.path.realpath(path) in inputs:
            continue
        # The longest name wins: img_1_2_out belongs to img_1_2, not to img_1.
        name = next((name for name in _beginnings(path.stem) if name in owners), "")
        for number in owners.get(name, []):
            (exact if name == path.stem else suffixed)[number].append(path)
    return [one or other for one, other in zip(exact, suffixed, strict=True)]


def _names(pairs: Sequence[ImagePair], number: int) -> set[str]:
    """Return the names that the image of a pair may begin with."""
    pair = pairs[number]
    stems = {pair.lr.stem, pair.hr.stem}
    return {panel_name(pairs, number), *stems, *(base for stem in stems if (base := _KIND.sub("", stem)))}


def _beginnings(stem: str) -> Iterator[str]:
    """Yield a file's stem, and its beginnings that a suffix may follow, from the longest to the shortest."""
    for end in range(len(stem), 0, -1):
        if end == len(stem) or _REST.match(stem, end):
            yield stem[:end]


def _in_list(path: Path, pairs: Sequence[ImagePair]) -> list[list[Path]]:
    rows: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for pair, sr in read_sr_list(path):
        rows[_identity(pair)].append(sr)
    return [rows[_identity(pair)] for pair in pairs]


def _identity(pair: ImagePair) -> tuple[str, str]:
    return os.path.realpath(pair.lr), os.path.realpath(pair.hr)


def _misfits(images: Sequence[Path], pairs: Sequence[ImagePair], scale: int, cache_dir: Path) -> Iterator[str]:
    """Yield the problem of each SR image that is neither as large as HR nor ``scale`` times as large as LR."""
    paths = [path for pair, sr in zip(pairs, images, strict=True) for path in (pair.lr, pair.hr, sr)]
    files = check_images(paths, cache_dir)
    for lr, hr, sr in zip(files[::3], files[1::3], files[2::3], strict=True):
        if isinstance(sr, DataError):
            yield str(sr)
        elif not isinstance(lr, DataError) and not isinstance(hr, DataError):
            cut = tuple(scale * side for side in common_size(lr.size, hr.size, scale))
            if sr.size not in (cut, hr.size, (scale * lr.height, scale * lr.width)):
                yield f"{sr.path} is {sr.width}×{sr.height} and its HR {cut[1]}×{cut[0]} (width×height)"


def _raise(title: str, problems: Sequence[str], advice: str) -> None:
    """Raise a DataError with the first problems, if there are any."""
    if problems:
        raise DataError("\n".join([title, *first_of(problems), advice]))
