from __future__ import annotations

import pytest

from d2csr.data.discovery import discover
from d2csr.errors import DataError

FOLDERS = [("HR", "LR"), ("hr", "lr"), ("GT", "LQ"), ("mine_HR", "mine_LR")]


@pytest.mark.parametrize(("hr", "lr"), FOLDERS)
def test_under_train_and_test(tree, hr, lr):
    for scene, path in enumerate(("train/{}/img_10.png", "train/{}/img_9.png", "test/{}/img_1.png"), start=1):
        tree.pair(path.format(hr), path.format(lr), scene)
    found = discover("pairs", tree.root, 4)
    assert tree.scenes(found["train"]) == [2, 1]
    assert tree.scenes(found["test"]) == [3]


def test_split_in_the_folders_names(tree):
    tree.pair("train_HR/a.png", "train_LR/a.png", 1)
    assert {split: tree.scenes(pairs) for split, pairs in discover("pairs", tree.root, 4).items()} == {"train": [1]}


@pytest.mark.parametrize(("hr", "lr"), FOLDERS)
def test_without_split_they_are_test_pairs(tree, hr, lr):
    tree.pair(f"{hr}/a.png", f"{lr}/a.png", 1)
    assert {split: tree.scenes(pairs) for split, pairs in discover("pairs", tree.root, 4).items()} == {"test": [1]}


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "tif", "TIFF", "webp", "bmp"])
def test_image_formats(tree, suffix):
    tree.pair(f"HR/a.{suffix}", f"LR/a.{suffix}", 1)
    assert [pair.hr.name for pair in discover("pairs", tree.root, 4)["test"]] == [f"a.{suffix}"]


def test_hidden_and_other_files_are_ignored(tree):
    tree.pair("HR/a.png", "LR/a.png", 1)
    for name in ("HR/._a.png", "HR/.DS_Store", "HR/Thumbs.db", "LR/notes.txt", ".LR/b.png"):
        path = tree.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert tree.scenes(discover("pairs", tree.root, 4)["test"]) == [1]


def test_equal_names_pair_with_any_ending(tree):
    for scene, name in enumerate(("tile_x1.png", "tile_x2.png", "tile_x3.png"), start=1):
        tree.pair(f"HR/{name}", f"LR/{name}", scene)
    assert tree.scenes(discover("pairs", tree.root, 4)["test"]) == [1, 2, 3]


def test_ambiguous_folders(tree):
    for name in ("a", "b"):
        tree.pair(f"{name}_HR/1.png", f"{name}_LR/1.png", 1)
    with pytest.raises(DataError, match="found HR: a_HR, b_HR; LR: a_LR, b_LR"):
        discover("pairs", tree.root, 4)


def test_swapped_folders(tree):
    tree.pair("LR/a.png", "HR/a.png", 1)
    with pytest.raises(DataError, match=r"HR is 0.25×0.25 times as large, not 4\. Are LR and HR swapped"):
        discover("pairs", tree.root, 4)


def test_folders_without_images(tree):
    for name in ("HR", "LR"):
        (tree.root / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"HR: holds no image \(.*\.png"):
        discover("pairs", tree.root, 4)


def test_patches(tree, caplog):
    for scene, number in enumerate((2, 10, 1), start=1):
        tree.pair(f"HR/a_x4_{number}.png", f"LR/a_x1_{number}.png", scene)
    assert tree.scenes(discover("pairs", tree.root, 4)["test"]) == [3, 1, 2]
    assert not caplog.records  # by name, not by order
