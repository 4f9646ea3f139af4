from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from d2csr.training.state import TrainingState, random_state, set_random_state


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_the_random_state_survives_a_checkpoint() -> None:
    draw()
    file = io.BytesIO()
    torch.save(TrainingState(epoch=3, random=[random_state()]).state(), file)
    expected = draw()
    file.seek(0)
    position = TrainingState(**torch.load(file, weights_only=True))
    assert position.epoch == 3
    set_random_state(position.random[0])
    assert draw() == expected


@pytest.mark.parametrize(("patches", "batch"), [(8, 6), (4, 12), (16, 3), (9, 6), (7, 7), (0, 6)])
def test_with_another_batch_size_no_patch_comes_twice(patches: int, batch: int) -> None:
    """6 batches of 8 patches are behind; 0 stands for an unknown size."""
    assert TrainingState(batch=6, patches=8).in_batches_of(patches).batch == batch
