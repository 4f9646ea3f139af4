"""The known data sets: RealSR, DRealSR, D2CRealSR, and pairs of any two folders."""

from __future__ import annotations

from d2csr.data.layouts.layout import Folders, Layout

# Suffixes that tell LR from HR in other data sets: scene_LR4, scene-hr, scene_x4, 0801x4, scene_x4_7 (patch 7).
_SUFFIX = r"(?:[_-](?:HR|LR|GT|LQ)\d*|(?:[_-]|(?<=\d))x\d)"
_ANY_SCENE = rf"(.+?)(?:{_SUFFIX}+(_\d+)?)?"
_ANY_EXAMPLE = "the same name for both, or such as scene_HR.png with scene_LR4.png, scene_x4.png with scene_x1.png"

KNOWN = {
    # Cai et al., ICCV 2019, version 3: RealSR(V3)/Canon/Train/4/Canon_001_HR.png and Canon_001_LR4.png. The same HR
    # name exists under each scale. Copies with LR and HR in separate folders are common. The old versions come last
    # among the homes: they are found only if there is no V3, and refused.
    "realsr": Layout(
        folders=(
            Folders("Canon|Nikon/{split}/{scale}", "HR", "LR"),
            Folders("Canon|Nikon/{split}/{scale}", ".", "."),
            Folders(".", "{split}_HR/x{scale}", "{split}_LR/x{scale}"),
            Folders("{split}/x{scale}", "HR", "LR"),
        ),
        scene=r"(.+?)(?:_HR|_LR{scale})?",
        example="Canon_001_HR.png with Canon_001_LR{scale}.png",
        homes=("RealSR(V3)", "RealSR_V3", "RealSR", "RealSR(V2)", "RealSR(V1)"),
        hr_name=r".*_HR",
        same_size="RealSR V1/V2, whose LR images are already upsampled to HR size. Use RealSR V3, with small LR",
    ),
    # Wei et al., ECCV 2020: HR sony_12_x4.png with LR sony_12_x1.png. Training images are patches: HR sony_12_x4_7.png
    # with LR sony_12_x1_7.png, or with an LR of the same name. The patch number is a group of its own: patch 1 of scene
    # "a" is not scene "a_1". Never by order: sorted LR and HR names do not always agree.
    "drealsr": Layout(
        folders=tuple(
            Folders(parent, "{split}_HR", "{split}_LR")
            for parent in (
                "x{scale}/{split}_x{scale}",
                "x{scale}/{split}_x{scale}/{split}_x{scale}",
                "{split}_x{scale}",
                "{split}_x{scale}/{split}_x{scale}",
            )
        ),
        scene=r"(.+?)(?:_x(?:1|{scale})(_\d+)?)?",
        example="HR sony_12_x{scale}.png with LR sony_12_x1.png, HR sony_12_x{scale}_7.png with LR sony_12_x1_7.png",
        homes=("DRealSR",),
    ),
    # Li et al., ECCV 2022. Its file names are not documented.
    "d2crealsr": Layout(
        folders=(Folders(".", "{split}_HR", "{split}_LR"),),
        scene=_ANY_SCENE,
        example=_ANY_EXAMPLE,
        homes=("D2CRealSR",),
        scales=(8,),
        pairs_by_order=True,
    ),
    # Any two folders, below train/ and test/ or not. Without these, the pairs are test pairs only: a model must not be
    # scored on the images that it was trained on.
    "pairs": Layout(
        folders=(
            Folders("{split}", "HR|GT|*_HR|*_GT", "LR|LQ|*_LR|*_LQ"),
            Folders(".", "{split}_HR|{split}_GT", "{split}_LR|{split}_LQ"),
            Folders(".", "HR|GT|*_HR|*_GT", "LR|LQ|*_LR|*_LQ"),
        ),
        scene=_ANY_SCENE,
        example=_ANY_EXAMPLE,
        pairs_by_order=True,
    ),
}
