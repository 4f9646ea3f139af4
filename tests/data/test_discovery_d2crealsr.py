from __future__ import annotations

import logging

import pytest

from d2csr.data.discovery import discover
from d2csr.errors import ConfigError, DataError


@pytest.mark.parametrize("home", ["", "D2CRealSR/"])
@pytest.mark.parametrize(
    ("hr", "lr"),
    [("{}.png", "{}.png"), ("{}_HR.png", "{}_LR8.PNG"), ("{}_x8.png", "{}_x1.png"), ("{}.png", "{}x8.png")],
)
def test_by_name(tree, home, hr, lr, caplog):
    for split in ("train", "test"):
        for scene, number in ((1, "10"), (2, "2"), (3, "1")):
            names = f"{home}{split}_HR/{hr.format(number)}", f"{home}{split}_LR/{lr.format(number)}"
            tree.pair(*names, scene, scale=8)
    found = discover("d2crealsr", tree.root, 8)
    assert tree.scenes(found["train"]) == tree.scenes(found["test"]) == [3, 2, 1]
    assert not caplog.records


def in_order(tree, sizes):
    """Names that have nothing in common, and whose order as text is not their order as numbers."""
    for i, size in enumerate(sizes, start=9):
        tree.pair(f"test_HR/tele_{i}.png", f"test_LR/wide_{i:03}.png", i, scale=8, size=size)


def test_by_order_if_no_names_agree(tree, caplog):
    in_order(tree, [(3, 4), (4, 3), (5, 3)])
    with caplog.at_level(logging.WARNING):
        found = discover("d2crealsr", tree.root, 8)
    assert tree.scenes(found["test"]) == [9, 10, 11]
    assert "the 3 images were paired in their order, wide_009.png with tele_9.png" in caplog.text


def test_by_order_only_if_every_size_fits(tree):
    in_order(tree, [(40, 30)] * 5)
    tree.image("test_LR/wide_012.png", 12, 1, (38, 30))  # the fourth; 8 × 38 is 16 less than HR, the ratio still near 8
    with pytest.raises(DataError, match=r"wide_012.png \(38×30\) with .*tele_12.png \(320×240\)"):
        discover("d2crealsr", tree.root, 8)


def test_by_order_only_if_the_counts_agree(tree):
    in_order(tree, [(4, 3)] * 3)
    tree.image("test_LR/wide_100.png", 1, 1, (4, 3))
    with pytest.raises(DataError, match=r"4 \(wide_009.png, .*\) of 4 LR .* 3 \(tele_9.png, .*\) of 3 HR"):
        discover("d2crealsr", tree.root, 8)


def test_by_order_not_if_some_names_agree(tree):
    in_order(tree, [(4, 3)] * 3)
    tree.pair("test_HR/same.png", "test_LR/same.png", 1, scale=8)
    with pytest.raises(DataError, match=r"3 \(wide_009.png, .*\) of 4 LR image"):
        discover("d2crealsr", tree.root, 8)


def test_scale_8_only(tree):
    in_order(tree, [(4, 3)])
    with pytest.raises(ConfigError, match="scale of d2crealsr: must be one of 8, got 4"):
        discover("d2crealsr", tree.root, 4)
