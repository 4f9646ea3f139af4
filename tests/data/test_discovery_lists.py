from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.discovery import discover
from d2csr.data.lists import read_list
from d2csr.data.splits import write_lists
from d2csr.errors import DataError


def test_lists_hold_the_discovered_pairs(tree, tmp_path, monkeypatch):
    for split in ("Train", "Test"):
        for number in (2, 10):
            stem = f"my sets/RealSR(V3)/Canon/{split}/4/Canon_{number}"
            tree.pair(f"{stem}_HR.png", f"{stem}_LR4.png", number)
    monkeypatch.chdir(tree.root)
    lists = write_lists("realsr", "my sets", 4, tmp_path / "out" / "lists")
    names = {split: path.name for split, path in lists.items()}
    assert names == {"train": "realsr_x4_train.txt", "test": "realsr_x4_test.txt"}
    found = discover("realsr", tree.root / "my sets", 4)
    monkeypatch.chdir(tmp_path)  # the paths are absolute: they hold from anywhere
    for split, path in lists.items():
        pairs = read_list(path)
        assert tree.scenes(pairs) == [2, 10]
        assert [(pair.lr, pair.hr) for pair in pairs] == [(pair.lr, pair.hr) for pair in found[split]]


def test_missing_split_gets_no_list(tree, tmp_path):
    tree.pair("HR/a.png", "LR/a.png", 1)
    assert write_lists("pairs", tree.root, 4, tmp_path / "out") == {"test": tmp_path / "out" / "pairs_x4_test.txt"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pairs_x4_test.txt"]


def test_names_of_linked_images_are_kept(tree, tmp_path):
    tree.pair("store/1.png", "store/2.png", 1)
    for name, target in (("HR/a.png", "1.png"), ("LR/a.png", "2.png")):
        (tree.root / name).parent.mkdir()
        (tree.root / name).symlink_to(tree.root / "store" / target)
    pair = read_list(write_lists("pairs", tree.root, 4, tmp_path / "out")["test"])[0]
    assert (pair.lr.name, pair.hr.name) == ("a.png", "a.png")


@pytest.mark.parametrize("output", ["file", "file/inside"])
def test_output_that_is_a_file(tree, tmp_path: Path, output):
    tree.pair("HR/a.png", "LR/a.png", 1)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"pairs_x4_test.txt: cannot be written"):
        write_lists("pairs", tree.root, 4, tmp_path / output)
    assert (tmp_path / "file").read_text() == "in the way"
