from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler

from d2csr.data.batch import to_tensor
from d2csr.data.dataset import PatchDataset, WholeImageDataset, to_planes
from d2csr.data.sampler import PatchSampler

SCALE = 3


def position_image(height, width, image=0):
    """Each pixel encodes its position and its image."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, np.full_like(rows, image)], axis=2)


class PositionSource:
    """Pairs in which an LR pixel and its HR pixels encode the same position; their colours may lie in planes."""

    def __init__(self, *sizes, planar=False):
        self.sizes = sizes
        self.planar = planar

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        lr = position_image(*self.sizes[index], index)
        hr = lr.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        if self.planar:
            return tuple(image.transpose(2, 0, 1).copy().transpose(1, 2, 0) for image in (lr, hr))
        return lr, hr


def as_tensors(item):
    return {name: torch.from_numpy(value) if name != "index" else value for name, value in item.items()}


class TensorDataset(PatchDataset):
    """Patches as tensors, which share the memory of the arrays."""

    def __getitem__(self, key):
        return as_tensors(super().__getitem__(key))


def dataset(*sizes, patch_size=5, patches_per_image=1, seed=0, planar=False, **settings):
    return TensorDataset(
        PositionSource(*sizes, planar=planar),
        scale=SCALE,
        patch_size=patch_size,
        patches_per_image=patches_per_image,
        seed=seed,
        **settings,
    )


def orientation(lr):
    """Which of the eight orientations a patch of positions has."""
    rows, columns = lr[0].int(), lr[1].int()
    transposed = bool(rows[0, 0] == rows[1, 0])
    if transposed:
        rows, columns = rows.T, columns.T
    return transposed, bool(rows[1, 0] < rows[0, 0]), bool(columns[0, 1] < columns[0, 0])


@pytest.mark.parametrize("planar", [False, True])
def test_lr_and_hr_show_the_same_place_under_every_augmentation(planar):
    patches = dataset((11, 9), planar=planar)
    orientations = Counter()
    for epoch in range(400):
        patch = patches[epoch, 0]
        assert patch["lr"].shape == (3, 5, 5)
        assert patch["hr"].shape == (3, 15, 15)
        assert patch["lr"].dtype == patch["hr"].dtype == torch.uint8
        over = patch["lr"].repeat_interleave(SCALE, dim=1).repeat_interleave(SCALE, dim=2)
        assert torch.equal(patch["hr"], over)
        orientations[orientation(patch["lr"])] += 1
    assert len(orientations) == 8
    assert min(orientations.values()) > 25, "each with probability 1/8"


def test_without_augmentation_patches_are_upright():
    patches = dataset((11, 9), augment=False)
    assert {orientation(patches[epoch, 0]["lr"]) for epoch in range(50)} == {(False, False, False)}


def test_planar_and_interleaved_colours_give_the_same_patches():
    interleaved, planar = dataset((11, 9)), dataset((11, 9), planar=True)
    for epoch in range(50):
        for name in ("lr", "hr"):
            assert torch.equal(planar[epoch, 0][name], interleaved[epoch, 0][name])


@pytest.mark.parametrize("planar", [False, True])
def test_a_patch_is_contiguous_and_owns_its_memory(planar):
    patches = dataset((11, 9), planar=planar)
    for epoch in range(30):
        patch = patches[epoch, 0]
        assert patch["lr"].is_contiguous()
        assert patch["hr"].is_contiguous()
        assert patch["hr"].untyped_storage().nbytes() == 3 * 15 * 15


def test_a_patch_as_large_as_its_image_is_no_view_of_it():
    image = position_image(5, 5).transpose(2, 0, 1).copy().transpose(1, 2, 0)
    image.flags.writeable = False
    patch = to_tensor(image)
    patch += 1
    assert np.array_equal(image, position_image(5, 5))


def test_every_crop_position_is_drawn():
    patches = dataset((8, 7), augment=False)
    corners = Counter()
    for epoch in range(600):
        corners[tuple(patches[epoch, 0]["lr"][:2, 0, 0].tolist())] += 1
    assert set(corners) == {(top, left) for top in range(4) for left in range(3)}
    assert min(corners.values()) > 20, "each with probability 1/12"


def test_an_image_of_exactly_the_patch_size_works():
    patch = dataset((5, 5), augment=False)[0, 0]
    assert torch.equal(patch["lr"], to_tensor(position_image(5, 5)))


def test_a_patch_follows_from_its_key_alone():
    sizes = (30, 30), (40, 20)
    first = dataset(*sizes)
    second = dataset(*sizes)
    second[0, 1], second[7, 0]  # what was asked for before changes nothing
    for key in ((0, 0), (0, 1), (5, 1)):
        assert all(torch.equal(first[key][name], second[key][name]) for name in ("lr", "hr"))


def test_other_epochs_numbers_and_seeds_give_other_patches():
    patches = dataset((60, 60), patches_per_image=2)
    reseeded = dataset((60, 60), patches_per_image=2, seed=1)
    found = [patches[0, 0], patches[1, 0], patches[0, 1], reseeded[0, 0]]
    assert len({bytes(patch["lr"].numpy()) for patch in found}) == 4


def test_a_patch_has_the_number_of_its_pair():
    patches = dataset((9, 9), (8, 9), (9, 7), patches_per_image=2)
    assert [patches[4, number]["index"] for number in range(6)] == [0, 0, 1, 1, 2, 2]
    assert all(patch["lr"][2].unique().tolist() == [patch["index"]] for patch in (patches[1, n] for n in range(6)))


def test_every_pair_gives_patches_per_image_patches():
    patches = dataset((9, 9), (9, 9), (9, 9), patches_per_image=4)
    assert len(patches) == 12
    assert [patches[0, number]["lr"][2, 0, 0].item() for number in range(12)] == [0] * 4 + [1] * 4 + [2] * 4


def test_whole_images_are_unchanged_and_numbered():
    images = WholeImageDataset(PositionSource((4, 5), (6, 7)))
    assert len(images) == 2
    sample = as_tensors(images[1])
    assert sample["index"] == 1
    assert torch.equal(sample["lr"], to_tensor(position_image(6, 7, 1)))
    assert sample["hr"].shape == (3, 18, 21)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_holds_every_patch_once(epoch):
    sampler = PatchSampler(12, batch_size=4, seed=0)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert {key[0] for key in keys} == {epoch}
    assert sorted(number for _, number in keys) == list(range(12))
    assert len(sampler) == 12


def test_the_order_depends_only_on_epoch_and_seed():
    def order(epoch, seed):
        sampler = PatchSampler(50, batch_size=5, seed=seed)
        sampler.set_epoch(epoch)
        return [number for _, number in sampler]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*key)) for key in ((0, 0), (1, 0), (2, 0), (0, 1))}) == 4
    assert order(0, 0) != sorted(order(0, 0))


def test_each_epoch_drops_other_patches_of_an_incomplete_batch():
    sampler = PatchSampler(11, batch_size=4, seed=0)
    assert len(sampler) == 8
    left_out = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        numbers = {number for _, number in sampler}
        assert len(numbers) == 8
        left_out |= set(range(11)) - numbers
    assert left_out == set(range(11))


@pytest.mark.parametrize(("num_patches", "world_size", "batch_size"), [(24, 2, 3), (25, 4, 2), (30, 3, 1), (5, 2, 2)])
def test_the_batches_of_all_ranks_together_are_those_of_one_process(num_patches, world_size, batch_size):
    def batches(size, rank=0, world=1):
        sampler = PatchSampler(num_patches, size, 5, rank, world)
        sampler.set_epoch(3)
        assert len(sampler) == len(list(sampler))
        return list(BatchSampler(sampler, size, drop_last=False))

    alone = batches(world_size * batch_size)
    ranks = [batches(batch_size, rank, world_size) for rank in range(world_size)]
    joined = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert joined == alone
    assert len(alone) == num_patches // (world_size * batch_size)


def test_too_few_patches_for_a_batch_make_an_empty_epoch():
    sampler = PatchSampler(3, batch_size=4, seed=0)
    assert len(sampler) == 0
    assert list(sampler) == []


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 2)])
def test_an_iteration_can_begin_in_the_middle_of_an_epoch(world_size, batch_size):
    for rank in range(world_size):
        whole = PatchSampler(26, batch_size, 5, rank, world_size)
        whole.set_epoch(3)
        rest = PatchSampler(26, batch_size, 5, rank, world_size, epoch=3, batch=4)
        rest.set_epoch(3)  # as Lightning does
        assert list(rest) == list(whole)[4 * batch_size :]
        assert len(rest) == len(whole)
        assert (rest.epoch, rest.batch) == (3, 4)
        rest.set_epoch(4)
        whole.set_epoch(4)
        assert list(rest) == list(whole), "the next epoch is a whole one"


@pytest.mark.parametrize("width", [1, 7, 8, 24, 30])
@pytest.mark.parametrize("planar", [False, True])
def test_rows_read_backwards_are_copied_in_their_order(width, planar):
    image = np.random.default_rng(width).integers(0, 256, (5, width, 3), np.uint8)
    if planar:
        image = image.transpose(2, 0, 1).copy().transpose(1, 2, 0)
    for view in (image[:, ::-1], image[::-1, ::-1], image[::-1]):
        planes = to_planes(view)
        assert planes.tolist() == [[[int(pixel[c]) for pixel in row] for row in view] for c in range(3)]
        assert planes.flags.c_contiguous
