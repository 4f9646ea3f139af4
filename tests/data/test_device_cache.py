from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from d2csr.data import device_cache
from d2csr.data.datamodule import PairDataModule
from d2csr.data.dataset import PatchDataset
from d2csr.data.device_cache import DeviceCache
from d2csr.errors import DataError

CPU = torch.device("cpu")
SIZES = (19, 18), (17, 28), (16, 16), (18, 18), (29, 19)


@pytest.fixture
def batches(pair, tmp_path):
    """Return the batches of an epoch on one of several ranks; HR is not an exact multiple of LR."""
    pairs = [pair(number, (h, w), (2 * h + 1, 2 * w - 1)) for number, (h, w) in enumerate(SIZES)]
    (tmp_path / "train.txt").write_text("".join(f"{p.lr} {p.hr}\n" for p in pairs))

    def make(cache, batch_size=4, rank=0, world_size=1, num_workers=0, start=(3, 0)):
        settings = {"patch_size": 15, "patches_per_image": 7, "batch_size": batch_size, "num_workers": num_workers}
        data = PairDataModule(
            scale=2, train_list=str(tmp_path / "train.txt"), cache=cache, cache_dir=str(tmp_path), seed=5, **settings
        )
        data.trainer = SimpleNamespace(
            **{"global_rank": rank, "world_size": world_size, "num_devices": world_size, "overfit_batches": 0},
            strategy=SimpleNamespace(root_device=CPU),
        )
        data.setup("fit")
        data.start_at(*start)
        return list(data.train_dataloader())

    return make


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys() == other.keys() == {"lr", "hr", "index"}
        for name, value in batch.items():
            assert value.dtype == other[name].dtype
            assert torch.equal(value, other[name])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_equal_those_of_the_disk_cache_on_one_and_on_two_ranks(batches, workers):
    assert_equal(batches("device", num_workers=2), batches("disk", num_workers=workers))
    joined = []
    for rank in (0, 1):
        found = batches("device", 2, rank, world_size=2)
        assert_equal(found, batches("disk", 2, rank, world_size=2, num_workers=workers))
        joined.append(found)
    whole = [
        {name: torch.cat([first[name], second[name]]) for name in first} for first, second in zip(*joined, strict=True)
    ]
    assert_equal(whole, batches("disk"))


def test_an_epoch_begins_in_its_middle(batches):
    assert_equal(batches("device", start=(3, 5)), batches("disk")[5:])


class Noise:
    """Pairs of noise of these LR sizes, at scale 2."""

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        random, (height, width) = np.random.default_rng(index), SIZES[index]
        return tuple(random.integers(0, 256, (s * height, s * width, 3), np.uint8) for s in (1, 2))


def on(device):
    source = Noise()
    rule = PatchDataset(source, scale=2, patch_size=12, patches_per_image=1, seed=0)
    return rule, replace(rule, source=DeviceCache(source, torch.device(device)))


def test_all_orientations_equal_those_of_numpy():
    rule, patches = on("cpu")
    for epoch in range(40):
        assert_equal([default_collate([patches[epoch, 1]])], [default_collate([rule[epoch, 1]])])


def test_a_batch_reads_no_value_of_the_device():
    """Tensors of the meta device have no values, so that an operation that needs one on the host fails."""
    _, patches = on("meta")
    batch = default_collate([patches[epoch, index] for epoch in range(8) for index in range(len(SIZES))])
    assert batch["hr"].device.type == batch["lr"].device.type == "meta"
    assert batch["hr"].shape == (8 * len(SIZES), 3, 24, 24)


def test_images_take_three_bytes_a_pixel():
    images = on("cpu")[1].source
    assert images[0][0].untyped_storage().nbytes() == 3 * 5 * sum(h * w for h, w in SIZES)
    assert [lr.shape[:2] for lr, _ in (images[index] for index in range(5))] == list(SIZES)


@pytest.mark.parametrize(("copies", "missing", "fits"), [(1, 0, True), (1, 1, False), (2, 0, True), (2, 1, False)])
def test_a_set_that_does_not_fit_is_refused_before_anything_is_allocated(copies, missing, fits, monkeypatch):
    needed = copies * 3 * 5 * sum(h * w for h, w in SIZES)
    monkeypatch.setattr(device_cache, "budget", lambda memory, device: needed - missing)
    if fits:
        DeviceCache(Noise(), CPU, copies)
        return
    monkeypatch.setattr(torch, "empty", None)
    sizes = rf"take {needed // copies:,} bytes .* {needed - 1:,} bytes"
    with pytest.raises(DataError, match=rf"^data\.cache=device: .* {sizes}"):
        DeviceCache(Noise(), CPU, copies)
