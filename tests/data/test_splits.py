from __future__ import annotations

import logging

import pytest
from PIL import Image

from d2csr.data.splits import Splits
from d2csr.errors import DataError


@pytest.fixture
def lists(tmp_path):
    """Write lists of one pair each, which carry their list's name."""

    def write(*names, folder="."):
        paths = []
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{path.stem}_lr.png {path.stem}_hr.png\n")
            paths.append(str(path))
        return paths

    return write


def names(pairs):
    return [pair.lr.name.removesuffix("_lr.png") for pair in pairs]


def test_each_split_has_its_own_list(lists):
    splits = Splits("pairs", 4, *lists("a.txt", "b.txt", "c.txt"))
    assert [names(splits.pairs(split)) for split in ("train", "val", "test")] == [["a"], ["b"], ["c"]]


def test_test_defaults_to_validation(lists):
    train, val = lists("a.txt", "b.txt")
    assert names(Splits("pairs", 4, train_list=train, val_list=val).pairs("test")) == ["b"]


def test_validation_and_test_default_to_training_with_a_warning(lists, caplog):
    [train] = lists("a.txt")
    splits = Splits("pairs", 4, train_list=train)
    with caplog.at_level(logging.WARNING):
        assert names(splits.pairs("val")) == ["a"]
    assert f"validating on the training list, {train}" in caplog.text
    assert names(splits.pairs("test")) == ["a"]


def test_the_list_folder_may_be_below_the_home_folder(lists, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    lists("pairs_x4_train.txt", "pairs_x4_val.txt", "pairs_x4_test.txt", folder="lists")
    splits = Splits("pairs", 4, list_dir="~/lists")
    assert [names(splits.pairs(split)) for split in ("train", "val")] == [["pairs_x4_train"], ["pairs_x4_val"]]


def test_the_list_folder_is_the_default(lists, tmp_path, caplog):
    lists("realsr_x4_train.txt", "realsr_x4_test.txt", "realsr_x4_val.txt", "realsr_x2_train.txt", folder="lists")
    splits = Splits("realsr", 4, list_dir=str(tmp_path / "lists"))
    assert names(splits.pairs("train")) == ["realsr_x4_train"]
    assert names(splits.pairs("val")) == ["realsr_x4_val"]
    assert names(splits.pairs("test")) == ["realsr_x4_test"]
    assert caplog.text == ""


def test_validation_defaults_to_the_test_list_of_the_list_folder(lists, tmp_path):
    lists("realsr_x4_train.txt", "realsr_x4_test.txt", folder="lists")
    assert names(Splits("realsr", 4, list_dir=str(tmp_path / "lists")).pairs("val")) == ["realsr_x4_test"]


def test_training_uses_the_list_folder_if_only_test_is_named(lists, tmp_path):
    lists("realsr_x4_train.txt", folder="lists")
    [test] = lists("mine.txt")
    splits = Splits("realsr", 4, test_list=test, list_dir=str(tmp_path / "lists"))
    assert names(splits.pairs("train")) == ["realsr_x4_train"]
    assert names(splits.pairs("test")) == ["mine"]


def test_a_missing_list_is_an_error_with_a_remedy(tmp_path):
    splits = Splits("drealsr", 3, list_dir=str(tmp_path))
    for split, missing in (("train", "train"), ("val", "test"), ("test", "test")):
        with pytest.raises(DataError, match=rf"drealsr_x3_{missing}\.txt: no such list\. Write one with d2csr-lists"):
            splits.pairs(split)


def test_paths_of_a_named_list_are_relative_to_the_root(lists, tmp_path):
    [train] = lists("a.txt")
    [pair] = Splits("pairs", 4, train_list=train, root="/sets").pairs("train")
    assert str(pair.lr) == "/sets/a_lr.png"


@pytest.fixture
def realsr(tmp_path):
    """A root in RealSR's layout with one pair for training and two for test, at scale 2."""
    root = tmp_path / "RealSR(V3)"
    for split, numbers in (("Train", [1]), ("Test", [2, 3])):
        for number in numbers:
            folder = root / "Canon" / split / "2"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(folder / f"Canon_{number:03}_HR.png")
            Image.new("RGB", (4, 4)).save(folder / f"Canon_{number:03}_LR2.png")
    return root


def test_pairs_are_discovered_in_the_root(realsr):
    splits = Splits("realsr", 2, root=str(realsr))
    assert [pair.lr.name for pair in splits.pairs("train")] == ["Canon_001_LR2.png"]
    expected = ["Canon_002_LR2.png", "Canon_003_LR2.png"]
    assert [pair.lr.name for pair in splits.pairs("val")] == expected
    assert [pair.lr.name for pair in splits.pairs("test")] == expected


def test_a_root_without_the_split_is_named(realsr):
    (realsr / "Canon" / "Train").rename(realsr.parent / "elsewhere")
    with pytest.raises(DataError, match="no train images at scale 2 were found in this folder"):
        Splits("realsr", 2, root=str(realsr)).pairs("train")
