from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from d2csr.data.loader_worker import BatchRing
from d2csr.distributed import ErrorReportingDataset
from d2csr.errors import DataError

SHAPES = {"lr": (3, 3, 4, 4), "hr": (3, 3, 8, 8)}


class Noise(Dataset):
    """Images of noise; some items fail, are larger, or kill their worker."""

    def __init__(self, length=24, **special):
        self.length = length
        self.special = special

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index == self.special.get("broken"):
            raise DataError(f"item {index} is broken")
        if index == self.special.get("killed") and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        factor = 2 if index == self.special.get("larger") else 1
        random = np.random.default_rng(index)
        images = {n: random.integers(0, 256, (3, factor * s[2], factor * s[3]), np.uint8) for n, s in SHAPES.items()}
        return {**{name: torch.from_numpy(image) for name, image in images.items()}, "index": index}


def alone(items):
    raise AssertionError("this batch does not pass through the ring")


def loader(items, collate=alone, slots=2, **settings):
    ring = BatchRing(SHAPES, 2, collate, slots)
    settings = {"batch_size": 3, "num_workers": 2, "persistent_workers": True, **settings}
    return DataLoader(items, collate_fn=ring, **settings)


def assert_equal(found, expected):
    found = list(found)
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        assert list(batch) == list(other)
        assert all(torch.equal(batch[name], other[name]) for name in batch)


def expected(items, batch_size=3):
    return list(DataLoader(items, batch_size))


def test_batches_are_those_of_one_process_and_are_not_overwritten_later():
    batches = loader(Noise())
    assert_equal(batches, expected(Noise()))
    assert_equal(batches, expected(Noise()))


def test_the_last_batch_may_be_smaller():
    assert_equal(loader(Noise(22)), expected(Noise(22)))


def test_without_workers_the_batch_is_collated_directly():
    assert_equal(loader(Noise(), default_collate, num_workers=0, persistent_workers=False), expected(Noise()))


def test_an_epoch_that_is_left_early_changes_no_later_batch():
    batches = loader(Noise())
    for _ in range(5):  # longer than the slots would last if they were not freed
        next(iter(batches))
    assert_equal(batches, expected(Noise()))


def test_an_image_of_another_size_passes_outside_the_ring():
    larger = Noise(24, larger=4)
    batches = loader(larger, default_collate, batch_size=1)
    assert_equal(batches, expected(larger, batch_size=1))


def test_more_batches_than_slots_pass_outside_the_ring():
    assert_equal(loader(Noise(60), default_collate, slots=1, prefetch_factor=8), expected(Noise(60)))


def test_an_error_in_a_worker_reaches_the_training_and_the_next_epoch_is_whole():
    items = Noise(24, broken=13)
    batches = loader(items)
    with pytest.raises(DataError, match="item 13 is broken"):
        list(batches)
    items = Noise(24, broken=13)
    stand_in = {name: torch.zeros(shape[1:], dtype=torch.uint8) for name, shape in SHAPES.items()}
    reporting = ErrorReportingDataset(items, {**stand_in, "index": -1})
    found = list(loader(reporting, ErrorReportingDataset.collate))
    assert [batch.get("error") for batch in found] == [None] * 4 + [["item 13 is broken"]] + [None] * 3
    assert_equal(found[:4], expected(Noise())[:4])


@pytest.mark.slow
def test_a_killed_worker_ends_the_training():
    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly"):
        list(loader(Noise(24, killed=13)))
