"""Folder layouts of the known data sets, and the registry for others."""

from __future__ import annotations

import re
from dataclasses import dataclass

from d2csr.checks import SCALES
from d2csr.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out on disk.

    ``{split}`` (``train``, ``test``) and ``{scale}`` are filled in. ``|`` separates alternatives, ``*`` stands for any
    text, ``.`` is the folder itself. Upper and lower case are equal.

    Attributes:
        folders: alternatives, the preferred one first. Each is a folder below the data set's own, and the folders of HR
            and LR images below that one; both may be the same. Without ``{split}`` it holds test images, and is used
            only if no alternative with ``{split}`` is found.
        names: regular expression for names without extension. Its groups are equal in the names of a pair. Images with
            equal names always belong together.
        example: names of a pair, for messages.
        homes: names that the data set's own folder may have, the preferred one first.
        scales: scales that the data set has.
        hr_names: regular expression for the names of HR images, where HR and LR are in one folder.
        pair_by_order: pair by order, with a check of all sizes and a warning, if no name matches another.
        equal_sizes: why LR images as large as HR are refused, for messages.
    """

    folders: tuple[tuple[str, str, str], ...]
    names: str = "(.+)"
    example: str = "the same name for both"
    homes: tuple[str, ...] = ()
    scales: tuple[int, ...] = SCALES
    hr_names: str = ".*_HR"
    pair_by_order: bool = False
    equal_sizes: str = ""


# Usual endings that distinguish LR from HR: scene_LR4, scene-hr, scene_x4, 0801x4, scene_x4_7 (patch 7).
_ENDING = r"(?:[_-](?:HR|LR|GT|LQ)\d*|(?:[_-]|(?<=\d))x\d)"
_NAMES = rf"(.+?)(?:{_ENDING}+(_\d+)?)?"
_EXAMPLE = "the same name for both, or such as scene_HR.png with scene_LR4.png, scene_x4.png with scene_x1.png"

LAYOUTS: dict[str, Layout] = {
    # Cai et al., ICCV 2019, version 3: a Canon and a Nikon. Canon_001_HR.png and Canon_001_LR4.png in one folder. The
    # old versions come last in homes: found only where there is no V3, and refused.
    "realsr": Layout(
        folders=(
            ("Canon|Nikon/{split}/{scale}", "HR", "LR"),
            ("Canon|Nikon/{split}/{scale}", ".", "."),
            (".", "{split}_HR/x{scale}", "{split}_LR/x{scale}"),
            ("{split}/x{scale}", "HR", "LR"),
        ),
        names="(.+?)(?:_HR|_LR{scale})?",
        example="Canon_001_HR.png with Canon_001_LR{scale}.png",
        homes=("RealSR(V3)", "RealSR_V3", "RealSR", "RealSR(V2)", "RealSR(V1)"),
        scales=(2, 3, 4),
        equal_sizes="looks like RealSR V1/V2, whose LR images are already upsampled to HR size. Use RealSR V3, whose "
        "LR images are small",
    ),
    # Wei et al., ECCV 2020: five cameras. Test images are whole; training images are patches: HR sony_12_x4_7.png with
    # LR sony_12_x1_7.png. The number of the patch is a group of its own: patch 1 of scene "a" is not scene "a_1".
    "drealsr": Layout(
        folders=tuple(
            (folder, "{split}_HR", "{split}_LR")
            for folder in (
                "x{scale}/{split}_x{scale}",
                "x{scale}/{split}_x{scale}/{split}_x{scale}",
                "{split}_x{scale}",
                "{split}_x{scale}/{split}_x{scale}",
            )
        ),
        names=r"(.+?)(?:_x(?:1|{scale})(_\d+)?)?",
        example="HR sony_12_x{scale}.png with LR sony_12_x1.png, HR sony_12_x{scale}_7.png with LR sony_12_x1_7.png",
        homes=("DRealSR",),
        scales=(2, 3, 4),
    ),
    # Li et al., ECCV 2022; its names are not documented.
    "d2crealsr": Layout(
        folders=((".", "{split}_HR", "{split}_LR"),),
        names=_NAMES,
        example=_EXAMPLE,
        homes=("D2CRealSR",),
        scales=(8,),
        pair_by_order=True,
    ),
    # Without train/ and test/ the pairs are test pairs only: a model would else be tested on its training images.
    "pairs": Layout(
        folders=(
            ("{split}", "HR|GT|*_HR|*_GT", "LR|LQ|*_LR|*_LQ"),
            (".", "{split}_HR|{split}_GT", "{split}_LR|{split}_LQ"),
            (".", "HR|GT|*_HR|*_GT", "LR|LQ|*_LR|*_LQ"),
        ),
        names=_NAMES,
        example=_EXAMPLE,
        pair_by_order=True,
    ),
}


def register_layout(name: str, layout: Layout) -> None:
    """Register a data set, as ``data.name=NAME`` and ``d2csr-lists dataset=NAME``.

    Raises:
        ConfigError: another data set has this name, or a pattern cannot be used.
    """
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ConfigError(f"name: must be letters, digits, - and _, got {name!r}.")
    if LAYOUTS.get(name, layout) != layout:
        raise ConfigError(f"name: there is a data set {name!r} already; choose another name.")
    for pattern in (layout.names, layout.hr_names):
        try:
            re.compile(pattern.replace("{scale}", "4"))
        except re.error as error:
            raise ConfigError(f"{name}: {pattern!r} is not a regular expression ({error}).") from None
    LAYOUTS[name] = layout
