from __future__ import annotations

import pytest
import torch

from d2csr.data.batch import PADDING, without_padding
from d2csr.data.dataset import WholeImageDataset
from d2csr.data.sampler import EvaluationSampler


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_images", [1, 2, 7, 8])
def test_each_image_is_on_one_rank(num_images, world_size):
    shares = [list(EvaluationSampler(num_images, rank, world_size)) for rank in range(world_size)]
    images = [number for share in shares for number in share if number != PADDING]
    assert sorted(images) == list(range(num_images))
    sizes = [len(share) for share in shares]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert [len(EvaluationSampler(num_images, rank, world_size)) for rank in range(world_size)] == sizes


def test_padding_is_alone_on_its_rank():
    assert list(EvaluationSampler(1, rank=1, world_size=2)) == [PADDING]
    assert list(EvaluationSampler(3, rank=1, world_size=2)) == [1]


def test_padding_can_be_read_and_does_not_count():
    images = [torch.zeros(4, 5, 3, dtype=torch.uint8).numpy(), torch.ones(8, 10, 3, dtype=torch.uint8).numpy()]
    read = WholeImageDataset([tuple(images)])[PADDING]
    assert read["index"] == PADDING
    batch = {
        "lr": torch.tensor(read["lr"])[None],
        "hr": torch.tensor(read["hr"])[None],
        "index": torch.tensor([PADDING]),
    }
    lr, hr = without_padding(batch)
    assert lr.shape == (0, 3, 4, 5)
    assert hr.shape == (0, 3, 8, 10)


def test_images_without_padding_all_count():
    batch = {"lr": torch.rand(2, 3, 4, 4), "hr": torch.rand(2, 3, 8, 8)}
    for index in ({}, {"index": torch.tensor([0, 7])}):
        lr, hr = without_padding({**batch, **index})
        assert torch.equal(lr, batch["lr"])
        assert torch.equal(hr, batch["hr"])
