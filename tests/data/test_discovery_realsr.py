from __future__ import annotations

import pytest
from PIL import Image

from d2csr.data.discovery import discover
from d2csr.errors import DataError


def mixed(tree, home="RealSR(V3)/", scales=(4,)):
    """The layout as it is published: HR and LR in one folder, the same HR names under each scale."""
    scene = 0
    for scale in scales:
        for camera in ("Canon", "Nikon"):
            for split, numbers in (("Train", ("002", "010", "001")), ("Test", ("001",))):
                for number in numbers:
                    scene += 1
                    stem = f"{home}{camera}/{split}/{scale}/{camera}_{number}"
                    tree.pair(f"{stem}_HR.png", f"{stem}_LR{scale}.png", scene, scale)


def test_published_layout(tree):
    mixed(tree)
    found = discover("realsr", tree.root, 4)
    assert tree.scenes(found["train"]) == [3, 1, 2, 7, 5, 6]  # Canon 001, 002, 010, Nikon 001, 002, 010
    assert tree.scenes(found["test"]) == [4, 8]
    assert found["test"][1].origin == str(tree.root / "RealSR(V3)" / "Nikon" / "Test" / "4")


@pytest.mark.parametrize("home", ["RealSR(V3)/", "RealSR_V3/", "RealSR/"])
def test_root_or_its_parent(tree, home):
    mixed(tree, home)
    assert discover("realsr", tree.root, 4) == discover("realsr", tree.root / home, 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_scales_are_kept_apart(tree, scale):
    mixed(tree, scales=(2, 3, 4))
    pairs = discover("realsr", tree.root, scale)["test"]
    assert tree.scenes(pairs) == [8 * (scale - 2) + 4, 8 * (scale - 2) + 8]
    assert {pair.lr.stem[-3:] for pair in pairs} == {f"LR{scale}"}


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("Canon/{Split}/4/HR", "Canon/{Split}/4/LR"),
        ("RealSR/{split}_HR/x4", "RealSR/{split}_LR/x4"),
        ("RealSR_V3/{split}/x4/HR", "RealSR_V3/{split}/x4/LR"),
    ],
)
@pytest.mark.parametrize(("hr_name", "lr_name"), [("{}_HR.png", "{}_LR4.png"), ("{}.png", "{}.png")])
def test_separate_hr_and_lr_folders(tree, hr, lr, hr_name, lr_name):
    scene = 0
    for split in ("train", "test"):
        for stem in ("Canon_2", "Canon_10", "Canon_1"):
            scene += 1
            hr_folder, lr_folder = (path.format(split=split, Split=split.title()) for path in (hr, lr))
            tree.pair(f"{hr_folder}/{hr_name.format(stem)}", f"{lr_folder}/{lr_name.format(stem)}", scene)
    found = discover("realsr", tree.root, 4)
    assert tree.scenes(found["train"]) == [3, 1, 2]
    assert tree.scenes(found["test"]) == [6, 4, 5]


def test_both_cameras_in_separate_folders(tree):
    tree.pair("Nikon/Test/4/HR/Nikon_001_HR.png", "Nikon/Test/4/LR/Nikon_001_LR4.png", 2)
    tree.pair("Canon/Test/4/HR/Canon_001_HR.png", "Canon/Test/4/LR/Canon_001_LR4.png", 1)
    assert tree.scenes(discover("realsr", tree.root, 4)["test"]) == [1, 2]


def test_missing_split_has_no_key(tree):
    tree.pair("Canon/Test/4/Canon_001_HR.png", "Canon/Test/4/Canon_001_LR4.png", 1)
    assert list(discover("realsr", tree.root, 4)) == ["test"]


def test_sizes_need_not_be_exact_multiples(tree):
    tree.image("Canon/Test/4/Canon_001_HR.png", 1, 2, (83, 47))
    tree.image("Canon/Test/4/Canon_001_LR4.png", 1, 1, (20, 12))
    assert tree.scenes(discover("realsr", tree.root, 4)["test"]) == [1]


@pytest.mark.parametrize("home", ["RealSR(V1)", "RealSR(V2)", "RealSR"])
def test_old_versions_are_refused_by_name(tree, home):
    for number in ("001", "002"):
        stem = f"{home}/Canon/Train/4/Canon_{number}"
        tree.image(f"{stem}_HR.png", 1, 2, (16, 12))
        tree.image(f"{stem}_LR4.png", 1, 1, (16, 12))
    with pytest.raises(DataError, match=r"looks like RealSR V1/V2.* upsampled to HR size.*Use RealSR V3"):
        discover("realsr", tree.root, 4)


def test_version_3_is_preferred_to_old_ones_beside_it(tree):
    tree.image("RealSR/Canon/Test/4/Canon_001_HR.png", 1, 2, (16, 12))
    tree.image("RealSR/Canon/Test/4/Canon_001_LR4.png", 1, 1, (16, 12))
    mixed(tree)
    assert tree.scenes(discover("realsr", tree.root, 4)["test"]) == [4, 8]


def test_lr_of_another_scale_is_no_counterpart(tree):
    tree.pair("Canon/Test/4/Canon_001_HR.png", "Canon/Test/4/Canon_001_LR2.png", 1)
    with pytest.raises(
        DataError, match=r"1 \(Canon_001_LR2.png\) of 1 LR image\(s\) without HR, 1 \(Canon_001_HR.png\)"
    ):
        discover("realsr", tree.root, 4)


def test_header_that_cannot_be_read(tree):
    mixed(tree)
    broken = tree.root / "RealSR(V3)" / "Canon" / "Train" / "4" / "Canon_001_LR4.png"
    broken.write_bytes(b"no image")
    assert len(discover("realsr", tree.root, 4)["train"]) == 6, "the check of what is used names all that are broken"


def test_no_image_is_decoded(tree, monkeypatch):
    mixed(tree)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded an image"))
    assert len(discover("realsr", tree.root, 4)["train"]) == 6


@pytest.mark.parametrize(("name", "kind"), [("Canon_009_HR.png", "HR"), ("Canon_009_LR4.png", "LR"), ("x.png", "LR")])
def test_one_lone_image(tree, name, kind):
    mixed(tree)
    tree.image(f"RealSR(V3)/Canon/Test/4/{name}", 1, 1, (4, 3))
    with pytest.raises(DataError, match=rf"1 \({name}\) of 2 {kind} image\(s\) without"):
        discover("realsr", tree.root, 4)


def test_sizes_of_another_scale(tree):
    tree.pair("Canon/Test/4/Canon_001_HR.png", "Canon/Test/4/Canon_001_LR4.png", 1, scale=2)
    with pytest.raises(DataError, match="HR is 2×2 times as large, not 4"):
        discover("realsr", tree.root, 4)
