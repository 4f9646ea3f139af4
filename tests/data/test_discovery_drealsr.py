from __future__ import annotations

import pytest

from d2csr.data.discovery import discover
from d2csr.errors import DataError

TRAIN_FOLDERS = ["DRealSR/x{s}/Train_x{s}", "DRealSR/Train_x{s}", "Train_x{s}", "x{s}/Train_x{s}"]
TEST_FOLDERS = [
    "DRealSR/x{s}/Test_x{s}",
    "DRealSR/Test_x{s}",
    "DRealSR/x{s}/Test_x{s}/Test_x{s}",
    "DRealSR/Test_x{s}/Test_x{s}",
    "Test_x{s}/Test_x{s}",
]
# Sorted, "a_x1.png" comes before "a_x1a_x1.png" but "a_x2.png" and "a_x4.png" after "a_x1a_x….png": order misleads.
STEMS = {"a": 1, "a_1": 2, "a_x": 3, "a_x1a": 4, "a_x40": 5, "Canon_10": 6, "Canon_2": 7, "P1160123": 8}


def whole_images(tree, folder, scale=4):
    for stem, scene in STEMS.items():
        tree.pair(f"{folder}/test_HR/{stem}_x{scale}.png", f"{folder}/test_LR/{stem}_x1.png", scene, scale)


def patches(tree, folder, lr_name="{stem}_x1_{i}.png", scale=4):
    scene = 0
    for stem in ("a", "a_1", "a_x1", "sony_12"):
        for i in (1, 2, 10):
            scene += 1
            hr = f"{folder}/train_HR/{stem}_x{scale}_{i}.png"
            tree.pair(hr, f"{folder}/train_LR/{lr_name.format(stem=stem, i=i)}", scene, scale)
    return scene


def by_order(pairs):
    """How other loaders pair: the sorted LR names with the sorted HR names."""
    lr, hr = sorted(pair.lr.name for pair in pairs), sorted(pair.hr.name for pair in pairs)
    return set(zip(lr, hr, strict=True))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("folder", TEST_FOLDERS)
def test_whole_images(tree, folder, scale):
    whole_images(tree, folder.format(s=scale), scale)
    found = discover("drealsr", tree.root, scale)
    assert list(found) == ["test"]
    assert sorted(tree.scenes(found["test"])) == sorted(STEMS.values())
    assert {(pair.lr.name, pair.hr.name) for pair in found["test"]} != by_order(found["test"])


@pytest.mark.parametrize("folder", TRAIN_FOLDERS)
@pytest.mark.parametrize("lr_name", ["{stem}_x1_{i}.png", "{stem}_x4_{i}.png"])
def test_patches(tree, folder, lr_name):
    count = patches(tree, folder.format(s=4), lr_name)
    found = discover("drealsr", tree.root, 4)
    assert list(found) == ["train"]
    assert sorted(tree.scenes(found["train"])) == list(range(1, count + 1))


def test_natural_order(tree):
    for scene, name in enumerate(("sony_12_x4_10", "sony_2_x4_1", "sony_12_x4_9"), start=1):
        tree.pair(f"Train_x4/train_HR/{name}.png", f"Train_x4/train_LR/{name.replace('_x4', '_x1')}.png", scene)
    assert tree.scenes(discover("drealsr", tree.root, 4)["train"]) == [2, 3, 1]


def test_both_splits_in_different_layouts(tree):
    patches(tree, "DRealSR/x4/Train_x4")
    whole_images(tree, "DRealSR/x4/Test_x4/Test_x4")
    found = discover("drealsr", tree.root / "DRealSR", 4)
    assert {split: len(pairs) for split, pairs in found.items()} == {"train": 12, "test": len(STEMS)}


def test_patch_of_a_scene_is_not_another_scene(tree):
    tree.pair("Test_x4/test_HR/a_x4_1.png", "Test_x4/test_LR/a_1_x1.png", 1)
    with pytest.raises(DataError, match=r"1 \(a_1_x1.png\) of 1 LR .* 1 \(a_x4_1.png\) of 1 HR"):
        discover("drealsr", tree.root, 4)


def test_never_paired_by_order(tree):
    tree.pair("Test_x4/test_HR/a_x4.png", "Test_x4/test_LR/b_x1.png", 1)
    with pytest.raises(DataError, match="without HR"):
        discover("drealsr", tree.root, 4)


def test_unpaired_files_are_named_and_counted(tree):
    whole_images(tree, "Test_x4")
    for i in range(7):
        tree.image(f"Test_x4/test_HR/lone_{i}_x4.png", 0, 2, (16, 12))
    tree.image("Test_x4/test_LR/alone_x1.png", 0, 1, (4, 3))
    with pytest.raises(DataError) as error:
        discover("drealsr", tree.root, 4)
    assert "1 (alone_x1.png) of 9 LR image(s) without HR" in str(error.value)
    assert "7 (lone_0_x4.png, lone_1_x4.png, lone_2_x4.png, lone_3_x4.png, lone_4_x4.png, ... and 2 more)" in str(
        error.value
    )
    assert "HR sony_12_x4.png with LR sony_12_x1.png" in str(error.value)


def test_two_images_of_one_scene(tree):
    whole_images(tree, "Test_x4")
    tree.image("Test_x4/test_LR/Canon_2_x1.jpg", 7, 1, (4, 3))
    with pytest.raises(DataError, match=r"1 \(Canon_2_x1\.jpg\) of 9 LR image\(s\) without HR, 0 of 8 HR"):
        discover("drealsr", tree.root, 4)


def test_sizes_of_another_scale(tree):
    tree.pair("Test_x4/test_HR/a_x4.png", "Test_x4/test_LR/a_x1.png", 1, scale=2)
    with pytest.raises(DataError, match="HR is 2×2 times as large, not 4"):
        discover("drealsr", tree.root, 4)


def test_wrong_scale_names_the_folders_that_are_there(tree):
    whole_images(tree, "DRealSR/x2/Test_x2", 2)
    whole_images(tree, "DRealSR/x3/Test_x3/Test_x3", 3)
    with pytest.raises(DataError, match=r"no pairs of scale 4 found(?s:.*)Found in it: .*, DRealSR/x2, DRealSR/x3\."):
        discover("drealsr", tree.root, 4)


def test_hr_folder_without_lr_folder(tree):
    patches(tree, "x4/Train_x4")
    tree.image("x4/Test_x4/test_HR/a_x4.png", 1, 2, (16, 12))
    with pytest.raises(DataError, match=r"Test_x4: expected .* found HR: test_HR; LR: no folder"):
        discover("drealsr", tree.root, 4)


def test_names_in_upper_case(tree):
    tree.pair("TEST_X4/TEST_HR/A_X4.PNG", "TEST_X4/TEST_LR/A_X1.PNG", 1)
    assert tree.scenes(discover("drealsr", tree.root, 4)["test"]) == [1]
