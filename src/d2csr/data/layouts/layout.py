"""Description of a data set on disk: where its folders are, and how its files are named."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from d2csr.checks import SCALES


@dataclass(frozen=True)
class Folders:
    """Patterns of the folders that hold the pairs of one split and one scale.

    Patterns are matched level by level and ignore case. ``{split}`` (train or test) and ``{scale}`` are filled in,
    ``|`` separates alternatives, ``*`` matches any text, and ``.`` is the folder itself. Without ``{split}`` the
    folders hold test images, and are used only if no split is found.

    Attributes:
        parent: from the data set's folder to the folder, or folders, with pairs.
        hr: from there to the HR images.
        lr: from there to the LR images; the same as ``hr`` if both are in one folder.
    """

    parent: str
    hr: str
    lr: str

    @property
    def has_split(self) -> bool:
        """Whether training images are separate from test images."""
        return "{split}" in f"{self.parent}/{self.hr}"

    def fill(self, split: str, scale: int) -> Folders:
        """Return the patterns of one split and one scale."""
        return Folders(*(path.format(split=split, scale=scale) for path in (self.parent, self.hr, self.lr)))


@dataclass(frozen=True)
class Layout:
    """A data set on disk.

    Attributes:
        folders: the folder patterns in which the data set is found, the preferred one first.
        scene: regular expression that matches each file name without its suffix, ignoring case. LR and HR of a scene
            have the same groups. ``{scale}`` is filled in. Where all LR and HR names are equal, it is not used.
        example: the two names of a scene, for messages; ``{scale}`` is filled in.
        homes: names of the data set's own folder, the preferred one first.
        scales: the scales that exist.
        hr_name: regular expression that HR names match, needed if LR and HR are in one folder.
        pairs_by_order: if no LR name agrees with an HR name, pair by order, provided that every size fits.
        same_size: what it means if LR is as large as HR, and what to do; completes "…: looks like".
    """

    folders: tuple[Folders, ...]
    scene: str
    example: str
    homes: tuple[str, ...] = ()
    scales: tuple[int, ...] = SCALES
    hr_name: str = ""
    pairs_by_order: bool = False
    same_size: str = ""

    def scene_of(self, image: Path, scale: int) -> Hashable:
        """Return what the names of a scene's two images have in common."""
        match = re.fullmatch(self.scene.replace("{scale}", str(scale)), image.stem, re.IGNORECASE)
        return match.groups() if match else image.stem

    def is_hr(self, image: Path) -> bool:
        """Return whether a file name is that of an HR image."""
        return re.fullmatch(self.hr_name, image.stem, re.IGNORECASE) is not None
