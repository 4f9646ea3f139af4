from __future__ import annotations

import numpy as np
import pytest
import torch

from d2csr.data.batch import as_batch, to_float
from d2csr.errors import DataError
from fake_gpu import fake_gpu

LR, HR = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 8, 10)


@pytest.mark.parametrize("form", [tuple, list])
def test_two_tensors_become_a_batch(form):
    batch = as_batch(form([LR, HR]), 2)
    assert set(batch) == {"lr", "hr"}
    assert torch.equal(batch["lr"], LR)
    assert torch.equal(batch["hr"], HR)


def test_bytes_become_floats_and_other_entries_stay():
    pixels = torch.tensor(np.arange(2 * 3 * 8 * 10).reshape(2, 3, 8, 10) % 256, dtype=torch.uint8)
    batch = as_batch({"lr": LR, "hr": pixels, "index": torch.tensor([3, 4]), "name": ["a", "b"]}, 2)
    np.testing.assert_allclose(batch["hr"].numpy(), (np.arange(480).reshape(2, 3, 8, 10) % 256) / 255, rtol=1e-6)
    assert batch["index"].tolist() == [3, 4]
    assert batch["name"] == ["a", "b"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (LR, "the data module gives a Tensor"),
        ((LR, HR, HR), "the data module gives a tuple of 3"),
        ({"lq": LR, "gt": HR}, "the data module gives lq, gt, without lr"),
        ({"lr": LR}, "without hr"),
        ((LR, HR[0]), r"hr must be a tensor N×3×H×W, got shape \[3, 8, 10\]"),
        ((LR, "hr.png"), "hr must be a tensor N×3×H×W, got str"),
        ((LR, HR.permute(0, 2, 3, 1)), r"hr must be a tensor N×3×H×W, got shape \[2, 8, 10, 3\]"),
        ((LR, LR), r"at scale 2, lr of \[2, 3, 4, 5\] does not fit hr of \[2, 3, 4, 5\]"),
        ((LR[:1], HR), "does not fit"),
        ((LR, HR.long()), "hr must be uint8 or float, got torch.int64"),
        ((LR, 255 * HR), r"hr must be in \[0, 1\], got values from .* to 25"),
        ((2 * LR - 1, HR), r"lr must be in \[0, 1\], got values from -"),
    ],
)
def test_anything_else_is_refused_with_what_is_missing(batch, message):
    with pytest.raises(DataError, match=message):
        as_batch(batch, 2)


def test_the_host_waits_for_the_range_of_a_batch_on_a_gpu_only_if_it_may():
    with fake_gpu() as waits:
        batch = {"lr": torch.rand(2, 3, 4, 5, device="cuda"), "hr": torch.rand(2, 3, 8, 10, device="cuda")}
        as_batch(batch, 2, wait=False)
        assert waits.seen == []
        as_batch(batch, 2)
        assert waits.seen == 4 * ["a value is read"]


def test_the_range_of_a_batch_on_the_host_is_always_checked():
    with pytest.raises(DataError, match="must be in"):
        as_batch((LR, 255 * HR), 2, wait=False)


def test_bytes_become_floats_between_zero_and_one():
    batch = to_float({"lr": torch.tensor([0, 51, 255], dtype=torch.uint8)})
    assert batch["lr"].dtype == torch.float32
    assert torch.equal(batch["lr"], torch.tensor([0, 0.2, 1]))


def test_other_values_are_unchanged():
    floats, index = torch.rand(3), torch.tensor([300])
    batch = to_float({"lr": floats, "index": index})
    assert batch["lr"] is floats
    assert batch["index"] is index
