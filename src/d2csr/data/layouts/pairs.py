"""Any two folders of images, one HR and one LR."""

from __future__ import annotations

import re
from pathlib import Path

from d2csr.data.layouts.folders import Layout, find_places
from d2csr.data.layouts.pairing import Naming, pair_tolerantly
from d2csr.data.lists import ImagePair

LAYOUTS = (
    Layout("{split}", "HR|GT|*_HR|*_GT", "LR|LQ|*_LR|*_LQ"),
    Layout(".", "{split}_HR|{split}_GT", "{split}_LR|{split}_LQ"),
    Layout(".", "HR|GT|*_HR|*_GT", "LR|LQ|*_LR|*_LQ"),
)

# What people append to tell LR from HR, as in scene_LR4, scene-hr, scene_x4, 0801x4, scene_x4_7 (patch 7).
_MARK = r"(?:[_-](?:HR|LR|GT|LQ)\d*|(?:[_-]|(?<=\d))x\d)"
NAMING = Naming(
    re.compile(rf"(.+?)(?:{_MARK}+(_\d+)?)?", re.IGNORECASE),
    "the same name for both, or such as scene_HR.png with scene_LR4.png, scene_x4.png with scene_x1.png",
)


def find_pairs(root: Path, scale: int) -> dict[str, list[ImagePair]]:
    """Find the pairs of two folders, under ``train/`` and ``test/`` or without.

    Without them the pairs are test pairs only. They are not handed out as training pairs too, for a model would then be
    judged on the images it was trained on; who means to train on them moves them under ``train/``.

    Args:
        root: the folder that holds the two, or ``train/`` and ``test/``.
        scale: how many times HR is as large as LR.

    Returns:
        The pairs of each split that is there.

    Raises:
        DataError: no two such folders, or their images do not pair.
    """
    places = find_places(root, LAYOUTS, scale)
    return {
        split: [pair for place in found for pair in pair_tolerantly(place, NAMING, scale)]
        for split, found in places.items()
    }
