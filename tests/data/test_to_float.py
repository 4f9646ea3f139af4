from __future__ import annotations

import torch

from d2csr.data.dataset import to_float


def test_bytes_become_floats_between_zero_and_one():
    batch = to_float({"lr": torch.tensor([0, 51, 255], dtype=torch.uint8)})
    assert batch["lr"].dtype == torch.float32
    assert torch.equal(batch["lr"], torch.tensor([0, 0.2, 1]))


def test_other_values_are_unchanged():
    floats, index = torch.rand(3), torch.tensor([300])
    batch = to_float({"lr": floats, "index": index})
    assert batch["lr"] is floats
    assert batch["index"] is index
