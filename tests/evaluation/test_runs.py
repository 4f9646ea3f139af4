from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from d2csr.evaluation.runs import describe, method_names, seed_groups

SETTINGS = {
    "seed": 0,
    "model": {"network": {"features": 64}, "optimizer": {"lr": 1e-4}},
    "data": {"train_list": "lists/a.txt", "root": None, "seed": 0, "num_workers": 2},
    "trainer": {"max_epochs": 10},
    "checkpoint": {"every_minutes": 10},
}


@pytest.fixture
def checkpoint(tmp_path):
    """Write the checkpoint of a run with these changes to its settings."""

    def write(run, file="best.ckpt", *, data=None, model=None, **changes):
        settings = SETTINGS | changes
        settings["data"] = SETTINGS["data"] | {"seed": settings["seed"]} | (data or {})
        settings["model"] = SETTINGS["model"] | (model or {})
        path = tmp_path / run / "checkpoints" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"settings": settings, "weights": torch.zeros(2)}, path)
        return path

    return write


def groups(*paths):
    return [tuple(group) for group in seed_groups({str(number): path for number, path in enumerate(paths)})]


def test_runs_of_the_same_settings_and_different_seeds_are_a_group(checkpoint):
    paths = [checkpoint(f"run{seed}", seed=seed) for seed in (3, 1, 2)]
    assert groups(*paths) == [(("0", "1", "2"), (3, 1, 2))]


@pytest.mark.parametrize(
    "same",
    [
        {"data": {"num_workers": 8, "cache_dir": "/tmp/cache"}},
        {"data": {"train_list": "/elsewhere/a.txt"}},
        {"threads": 4, "checkpoint": {"every_minutes": 1}},
    ],
)
def test_folders_and_the_machine_may_differ(checkpoint, same):
    assert len(groups(checkpoint("a"), checkpoint("b", seed=1, **same))) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"optimizer": {"lr": 1e-3}}},
        {"trainer": {"max_epochs": 11}},
        {"data": {"train_list": "lists/b.txt"}},
        {"data": {"train_list": None}},
        {"optimization": "joint"},
    ],
)
def test_other_settings_are_no_group(checkpoint, other):
    assert groups(checkpoint("a"), checkpoint("b", seed=1, **other)) == []


def test_each_setting_has_its_group(checkpoint):
    paths = [checkpoint(f"{lr}-{seed}", seed=seed, model={"lr": lr}) for seed in (0, 1) for lr in (1, 2)]
    assert groups(*paths) == [(("0", "2"), (0, 1)), (("1", "3"), (0, 1))]


def test_best_and_last_checkpoints_are_not_mixed(checkpoint):
    best, last = ([checkpoint(f"run{seed}", file, seed=seed) for seed in (0, 1)] for file in ("best.ckpt", "last.ckpt"))
    assert groups(*best, *last) == [(("0", "1"), (0, 1)), (("2", "3"), (0, 1))]
    assert groups(best[0], last[0]) == []


def test_other_files_are_in_no_group(checkpoint, golden, tmp_path):
    torch.save({"d2csr": {}, "state_dict": {}}, tmp_path / "export.ckpt")
    assert groups(checkpoint("a"), tmp_path / "export.ckpt", golden / "eval-x4" / "official.pkl") == []


def test_methods_are_named_by_run_folder_or_file(tmp_path):
    runs = [Path(f"out/{run}/checkpoints/best.ckpt") for run in ("a", "b")]
    assert method_names(runs, [Path("sr/SwinIR")]) == ["a", "b", "SwinIR"]
    assert method_names(runs[:1], [Path("sr/SwinIR"), Path("HAT")]) == ["fusion", "SwinIR", "HAT"]
    export = tmp_path / "x4.ckpt"
    export.touch()
    assert method_names([*runs, export], []) == ["a", "b", "x4"]


def test_names_that_are_not_unique_get_longer():
    files = [Path(f"out/a/checkpoints/{file}.ckpt") for file in ("best", "last")]
    assert method_names(files, []) == ["a/best", "a/last"]
    folders = [Path("one/sr"), Path("two/sr")]
    assert method_names([], folders) == ["one/sr", "two/sr"]
    assert method_names([], [Path("bicubic")]) == [str(Path.cwd() / "bicubic")]
    assert method_names(files[:1], [Path("out/fusion")]) == ["fusion", "out/fusion"]
    same = [Path(f"{date}/0/checkpoints/best.ckpt") for date in ("mon", "tue")]
    assert method_names(same, []) == [str(path.absolute()) for path in same]


def test_checkpoints_are_described_by_their_hash(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(bytes(range(256)) * 5000)
    about = describe({"fusion": tmp_path / "x.ckpt"}, {"HAT": Path("hat")})
    sha256 = hashlib.sha256(bytes(range(256)) * 5000).hexdigest()
    assert about["checkpoints"] == [{"method": "fusion", "path": str(tmp_path / "x.ckpt"), "sha256": sha256}]
    assert about["sr"] == [{"method": "HAT", "path": "hat"}]
