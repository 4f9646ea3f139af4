from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch

from d2csr.checkpoints.archive import read_archive
from d2csr.errors import CheckpointError


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.stride() == second.stride() and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def contents():
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    return {
        "dtypes": [(base * 5).to(dtype) for dtype in DTYPES],
        "views": [base[2], base[:, 1:3], base.T, base[1, 2], base[::2], base.new_zeros(0, 4), base[:0]],
        "network": dict(network.state_dict()),
        "parameters": list(network.parameters()),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "plain": {"a": [1, -1, 2**40, 1.5, None, True, "ö\x00", (), {}, (1, (2, "x"))], 7: -(2**63)},
    }


def test_the_content_equals_that_of_torch_load(tmp_path):
    path = tmp_path / "a.pt"
    content = contents()
    torch.save(content, path)
    expected = torch.load(path, weights_only=True)
    read = read_archive(path, tuple(content))
    assert same(read.pop("parameters"), [value.detach() for value in expected.pop("parameters")])
    assert same(read, expected)


def test_only_the_wanted_entries_are_returned(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.zeros(3), "c": 1}, tmp_path / "a.pt")
    assert same(read_archive(tmp_path / "a.pt", ("b", "c", "d")), {"b": torch.zeros(3), "c": 1})


def test_torch_values_of_schedulers_and_callbacks_are_read_as_plain_values(tmp_path):
    kept = {"m": collections.Counter([3, 3, 5]), "s": torch.Size([2, 3]), "t": torch.float32, "d": torch.device("cpu")}
    torch.save(kept, tmp_path / "a.pt")
    read = read_archive(tmp_path / "a.pt", tuple(kept))
    assert read == {"m": {3: 2, 5: 1}, "s": [2, 3], "t": "torch.float32", "d": "cpu"} | {"s": read["s"]}
    assert list(read["s"]) == [2, 3]


def test_a_big_archive_has_a_directory_of_64_bits(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({str(number): torch.full((2,), float(number)) for number in range(3000)}, path)
    read = read_archive(path, ("2999",))
    assert read["2999"].tolist() == [2999.0, 2999.0]


def test_a_device_in_place_of_a_file_is_refused():
    with pytest.raises(CheckpointError, match=r"/dev/null: a broken or foreign checkpoint"):
        read_archive(Path("/dev/null"), ())
