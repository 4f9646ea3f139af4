from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from d2csr.data.batch import to_tensor
from d2csr.data.datamodule import PairDataModule
from d2csr.data.images import read_rgb
from d2csr.data.sources import CACHES
from d2csr.errors import ConfigError, DataError


@pytest.fixture
def build(pair, tmp_path):
    """Build a data module over pairs of these LR sizes, at scale 2."""

    def make(*sizes, **settings):
        pairs = [pair(number, size, (2 * size[0], 2 * size[1])) for number, size in enumerate(sizes, start=1)]
        path = tmp_path / "train.txt"
        path.write_text("".join(f"{p.lr} {p.hr}\n" for p in pairs))
        defaults = {"batch_size": 2, "patch_size": 6, "num_workers": 0, "train_list": str(path)}
        return PairDataModule(scale=2, **{**defaults, **settings})

    return make


def epoch_of(datamodule, epoch=0):
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_training_gives_batches_of_patches(build):
    batches = epoch_of(build((9, 8), (7, 8), (6, 6), (8, 8), (9, 9), patches_per_image=3))
    assert len(batches) == 7
    for batch in batches:
        assert batch["lr"].shape == (2, 3, 6, 6)
        assert batch["hr"].shape == (2, 3, 12, 12)
        assert batch["lr"].dtype == torch.uint8


def test_validation_and_test_give_whole_images_one_by_one_in_the_order_of_the_list(build):
    datamodule = build((9, 8), (7, 8))
    datamodule.setup("fit")
    datamodule.setup("test")
    for loader in (datamodule.val_dataloader(), datamodule.test_dataloader()):
        batches = list(loader)
        assert [batch["index"].tolist() for batch in batches] == [[0], [1]]
        for batch, named in zip(batches, datamodule.test_pairs, strict=True):
            assert torch.equal(batch["lr"][0], to_tensor(read_rgb(named.lr)))
            assert torch.equal(batch["hr"][0], to_tensor(read_rgb(named.hr)))


def same(batches, others):
    return all(torch.equal(a[key], b[key]) for a, b in zip(batches, others, strict=True) for key in ("lr", "hr"))


@pytest.mark.parametrize("cache", CACHES)
def test_the_cache_changes_no_batch(cache, build, tmp_path):
    sizes = (9, 8), (7, 8), (6, 6)
    for epoch in (0, 4):
        expected = epoch_of(build(*sizes, patches_per_image=10), epoch)
        assert same(epoch_of(build(*sizes, patches_per_image=10, cache=cache, cache_dir=tmp_path), epoch), expected)


@pytest.mark.parametrize("cache", CACHES)
def test_from_files_to_batches_lr_and_hr_show_the_same_place(cache, tmp_path):
    """The position is in the pixels; HR is larger or smaller than it should be, and crops reach what both cover."""
    scale, patch, lines = 3, 5, []
    sizes = [((12, 11), (36, 33)), ((9, 12), (31, 38)), ((11, 10), (30, 28))]
    for number, (lr, hr) in enumerate(sizes):
        for kind, (height, width), step in (("lr", lr, 1), ("hr", hr, scale)):
            rows, columns = np.mgrid[:height, :width] // step
            pixels = np.stack([rows, columns, np.full_like(rows, number)], axis=2).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{kind}{number}.png")
        lines.append(f"lr{number}.png hr{number}.png\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    datamodule = PairDataModule(
        **{"scale": scale, "train_list": str(tmp_path / "list.txt"), "patch_size": patch, "batch_size": 10},
        **{"patches_per_image": 1000, "num_workers": 0, "cache": cache, "cache_dir": str(tmp_path / "cache")},
    )
    places, orientations = set(), set()
    for batch in epoch_of(datamodule):
        over = batch["lr"].repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        assert torch.equal(batch["hr"], over)
        for lr in batch["lr"]:
            places.add((*(lr[:2].amin(dim=(1, 2)).tolist()), int(lr[2, 0, 0])))
            orientations.add((*lr[:2, 0, 0].sub(lr[:2, -1, -1]).tolist(), bool(lr[0, 0, 0] == lr[0, 0, 1])))
    common = [(12, 11), (9, 12), (10, 9)]
    assert places == {
        (top, left, number)
        for number, (height, width) in enumerate(common)
        for top in range(height - patch + 1)
        for left in range(width - patch + 1)
    }
    assert len(orientations) == 8


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_the_number_of_workers_changes_no_batch(cache, build, tmp_path):
    sizes = [(9, 8), (7, 8), (8, 8), (6, 9)]
    settings = {"patches_per_image": 3, "cache": cache, "cache_dir": str(tmp_path)}
    for epoch in (0, 1):
        expected = epoch_of(build(*sizes, **settings), epoch)
        for num_workers in (1, 2, 3):
            assert same(epoch_of(build(*sizes, num_workers=num_workers, **settings), epoch), expected)


def test_only_training_images_are_cached_on_disk(build, tmp_path):
    datamodule = build((9, 8), (7, 8), cache="disk", cache_dir=str(tmp_path / "cache"))
    datamodule.setup("fit")
    assert len(list((tmp_path / "cache" / "images").glob("*/*.npy"))) == 4
    other = build((9, 8), (7, 8), (5, 5), cache="disk", cache_dir=str(tmp_path / "other"))
    other.setup("validate")
    other.setup("test")
    assert not (tmp_path / "other" / "images").exists()


def test_broken_pairs_are_skipped_in_all_splits(build, tmp_path):
    datamodule = build((9, 8), (5, 8), (7, 8), (6, 6), on_error="skip")
    (tmp_path / "lr3.png").write_text("no image")
    datamodule.setup("fit")
    datamodule.setup("test")
    assert len(datamodule.train_dataloader().dataset) == 2, "one of them is smaller than the patch"
    assert [batch["index"].item() for batch in datamodule.val_dataloader()] == [0, 1, 2]
    assert [pair.lr.name for pair in datamodule.test_pairs] == ["lr1.png", "lr2.png", "lr4.png"]
    assert [len(batch["lr"]) for batch in datamodule.test_dataloader()] == [1, 1, 1]


def test_too_few_patches_for_one_batch_are_an_error(build):
    with pytest.raises(DataError) as error:
        build((9, 8), (7, 8), batch_size=4).setup("fit")
    assert "train.txt:1: 2 patches an epoch (2 pairs × data.patches_per_image=1)" in str(error.value)
    assert "Lower data.batch_size or raise data.patches_per_image" in str(error.value)


def test_a_pair_smaller_than_the_patch_is_refused_for_training_alone(build):
    datamodule = build((9, 8), (5, 8))
    with pytest.raises(DataError, match=r"(?s)train\.txt:2: .*data\.patch_size=5 fits"):
        datamodule.setup("fit")
    datamodule.setup("test")
    assert len(datamodule.test_pairs) == 2


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("batch_size", 0, "must be a whole number from 1 up"),
        ("batch_size", "4", "must be a whole number from 1 up"),
        ("batch_size", True, "must be a whole number from 1 up"),
        ("patch_size", -3, "must be a whole number from 1 up"),
        ("patches_per_image", 1.5, "must be a whole number from 1 to 1000000"),
        ("patches_per_image", 10**10, "must be a whole number from 1 to 1000000"),
        ("num_workers", -1, "must be a whole number from 0 up"),
        ("seed", -1, "must be a whole number from 0 up"),
        ("augment", 1, "must be true or false"),
        ("cache", "flash", "must be one of none, ram, disk, device"),
        ("cache", None, "must be one of none, ram, disk, device"),
        ("on_error", "ignore", "must be one of raise, skip"),
    ],
)
def test_an_impossible_setting_is_named(setting, value, message, build):
    with pytest.raises(ConfigError, match=rf"^{setting}: {message}, got {value!r}"):
        build((9, 8), **{setting: value})


def test_training_needs_a_batch_size_and_a_patch_size_and_evaluation_does_not(build):
    datamodule = build((9, 8), (7, 8), patch_size=None)
    datamodule.setup("test")
    assert len(list(datamodule.test_dataloader())) == 2
    with pytest.raises(ConfigError, match=r"data\.batch_size and data\.patch_size are needed"):
        datamodule.setup("fit")


def test_describe_returns_absolute_paths(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = build((9, 8), test_list="mine.txt", name="realsr").describe()
    assert about == {
        "name": "realsr",
        "scale": 2,
        "train_list": str(tmp_path / "train.txt"),
        "val_list": None,
        "test_list": str(tmp_path / "mine.txt"),
        "list_dir": str(tmp_path / "lists"),
        "root": None,
        "val_share": None,
        "validated_on": str(tmp_path / "train.txt"),
    }


def test_paths_may_begin_with_the_home_folder(build, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    about = build((9, 8), test_list="~/mine.txt", list_dir="~/lists", root="~/set").describe()
    assert [about[key] for key in ("test_list", "list_dir", "root")] == [
        str(tmp_path / name) for name in ("mine.txt", "lists", "set")
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_can_begin_in_the_middle_of_an_epoch(build, workers):
    sizes = ((9, 8), (7, 8), (6, 6), (8, 8), (9, 9))
    whole = epoch_of(build(*sizes, patches_per_image=3), epoch=2)
    datamodule = build(*sizes, patches_per_image=3, num_workers=workers)
    before, after = (datamodule.start_at, datamodule.setup)[:: 1 if workers else -1]
    for call in (before, after):  # in whichever order
        call(*(("fit",) if call == datamodule.setup else (2, 3)))
    rest = list(datamodule.train_dataloader())
    assert len(rest) == len(whole) - 3 == 4
    for batch, expected in zip(rest, whole[3:], strict=True):
        assert torch.equal(batch["lr"], expected["lr"])
        assert torch.equal(batch["hr"], expected["hr"])


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), (None, True)])
def test_batches_are_in_pinned_memory_on_a_machine_with_a_gpu_unless_it_trains_on_the_cpu(
    device, pinned, build, monkeypatch
):
    datamodule = build((9, 8), (7, 8))
    datamodule.setup("fit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if device is not None:
        strategy = SimpleNamespace(root_device=torch.device(device))
        datamodule.trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, strategy=strategy)
    assert datamodule.val_dataloader().pin_memory == pinned


def test_loaders_do_not_change_the_random_state(build):
    datamodule = build((9, 8), (7, 8))
    before = torch.get_rng_state()
    epoch_of(datamodule)
    list(datamodule.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
