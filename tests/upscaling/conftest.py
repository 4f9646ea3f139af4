from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the work is small: more threads are slower


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Return a function that makes random integers of a shape, over the whole range of a dtype."""

    def make(*shape: int, dtype: type = np.uint8) -> np.ndarray:
        return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)

    return make
