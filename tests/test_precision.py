from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.backends import cuda, cudnn

from d2csr.precision import tf32


def flags() -> tuple[bool, bool, str]:
    return cudnn.allow_tf32, cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


def set_flags(convolutions: bool, products: str) -> None:
    cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision(products)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    set_flags(True, "highest")


@pytest.mark.parametrize("former", [(True, "highest"), (False, "high"), (True, "medium")])
@pytest.mark.parametrize("allowed", [True, False])
def test_the_flags_are_set_within_the_block_and_restored_after_it(allowed, former) -> None:
    set_flags(*former)
    before = flags()
    with tf32(allowed):
        assert flags() == (allowed, allowed, "high" if allowed else "highest")
        with tf32(not allowed):
            assert flags()[:2] == (not allowed, not allowed)
        assert flags()[:2] == (allowed, allowed)
    assert flags() == before


def test_the_flags_are_restored_after_an_error() -> None:
    with pytest.raises(KeyError), tf32(False):
        raise KeyError
    assert cudnn.allow_tf32


def test_programs_that_use_the_newer_flags() -> None:
    """After them torch refuses to read the older ones."""
    cudnn.conv.fp32_precision, cuda.matmul.fp32_precision = "ieee", "tf32"
    with pytest.raises(RuntimeError):
        flags()
    with tf32(False):
        assert (cudnn.conv.fp32_precision, cuda.matmul.fp32_precision) == ("ieee", "ieee")
        with tf32(True):
            assert (cudnn.conv.fp32_precision, cuda.matmul.fp32_precision) == ("tf32", "tf32")
    assert (cudnn.conv.fp32_precision, cuda.matmul.fp32_precision) == ("ieee", "tf32")
