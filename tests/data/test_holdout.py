from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.lists import ImagePair
from d2csr.data.splits import hold_out
from d2csr.errors import ConfigError, DataError


def pairs(*names):
    return [ImagePair(Path(f"lr/{name}.png"), Path(f"hr/{name}.png"), "folder") for name in names]


def names(found, split):
    return [pair.hr.stem for pair in found[split]]


PATCHES = [f"sony_{scene}_x4_{patch}" for scene in range(40) for patch in (1, 2)]


def test_a_scene_is_never_in_both():
    found = {"train": pairs(*PATCHES), "test": pairs("t")}
    split = hold_out(found, "drealsr", 4, 0.25, seed=3)
    assert sorted(names(split, "train") + names(split, "val")) == sorted(PATCHES)
    assert len(split["val"]) == 20
    scenes = [{name.rsplit("_", 2)[0] for name in names(split, part)} for part in ("train", "val")]
    assert not scenes[0] & scenes[1]
    assert split["test"] == found["test"]
    order = [PATCHES.index(name) for name in names(split, "val")]
    assert order == sorted(order)


def test_the_choice_follows_from_the_seed_and_the_names_alone():
    held = names(hold_out({"train": pairs(*PATCHES)}, "drealsr", 4, 0.2, seed=1), "val")
    assert names(hold_out({"train": pairs(*PATCHES[::-1])}, "drealsr", 4, 0.2, seed=1), "val")[::-1] == held
    assert names(hold_out({"train": pairs(*PATCHES)}, "drealsr", 4, 0.2, seed=2), "val") != held
    assert held[:2] == ["sony_1_x4_1", "sony_1_x4_2"]  # the same on any machine and in any later version


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.5, 2), (0.999, 3)])
def test_at_least_one_scene_is_held_out_and_one_is_left(share, count):
    split = hold_out({"train": pairs("a", "b", "c", "d")}, "pairs", 4, share)
    assert len(split["val"]) == count


def test_the_scene_of_other_names_is_a_pattern():
    found = {"train": pairs("0001_s001", "0001_s002", "0002_s001", "0002_s002")}
    split = hold_out(found, "pairs", 4, 0.5, scene=r"(.+)_s\d+")
    assert len({name[:4] for name in names(split, "val")}) == 1
    assert len(split["val"]) == 2


def test_nothing_is_held_out_without_a_share():
    found = {"train": pairs("a")}
    assert hold_out(found, "pairs", 4, None) is found


@pytest.mark.parametrize(
    ("found", "settings", "message"),
    [
        ({"train": pairs("a", "b")}, {"share": 1.0}, "val: must be a number above 0 and below 1, got 1.0"),
        ({"train": pairs("a", "b")}, {"share": 0.5, "seed": -1}, "seed: must be a whole number"),
        ({"train": pairs("a", "b")}, {"share": 0.5, "scene": "a+"}, "scene: 'a[+]' has no group"),
        ({"train": pairs("a_x4_1", "a_x4_2")}, {"share": 0.5}, "folder: 1 training scenes; val=0.5 needs at least 2"),
        ({"test": pairs("a")}, {"share": 0.5}, "pairs: 0 training scenes"),
    ],
)
def test_what_cannot_be_held_out_is_named(found, settings, message):
    with pytest.raises((ConfigError, DataError), match=message):
        hold_out(found, "pairs", 4, **settings)
