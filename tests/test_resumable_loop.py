"""Training states: random numbers and other batch sizes."""

from __future__ import annotations

import io
import random
from dataclasses import asdict

import numpy as np
import pytest
import torch

from d2csr.resumable_loop import TrainingState, random_state, set_random_state


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_a_checkpoint_restores_the_random_state() -> None:
    draw()
    file = io.BytesIO()
    torch.save(asdict(TrainingState(epoch=3, random=[random_state()])), file)
    expected = draw()
    file.seek(0)
    state = TrainingState(**torch.load(file, weights_only=True))
    assert state.epoch == 3
    set_random_state(state.random[0])
    assert draw() == expected


# A second normal deviate is the other one of a pair: it is used without a new random number.
DRAWS = {
    "nothing": lambda: None,
    "python": random.random,
    "python, normal": lambda: random.gauss(0, 1),
    "numpy": np.random.rand,
    "numpy, 624 words": lambda: np.random.bytes(4 * 624),
    "numpy, normal": np.random.randn,
    "numpy, a seed": lambda: np.random.seed(5),
    "torch": lambda: torch.rand(()),
}


@pytest.mark.parametrize("before", DRAWS)
def test_a_state_is_that_of_the_time_when_it_was_taken(before: str) -> None:
    random.seed(1)  # no normal deviate is left
    np.random.seed(1)
    DRAWS[before]()
    state = random_state()
    expected = draw()
    set_random_state(state)
    assert draw() == expected


@pytest.mark.parametrize(("patches", "batch"), [(8, 6), (4, 12), (16, 3), (9, 6), (7, 7), (0, 6)])
def test_another_batch_size_repeats_no_patch(patches: int, batch: int) -> None:
    """After 6 batches of 8 patches; 0 is an unknown size."""
    assert TrainingState(batch=6, patches=8).for_batches_of(patches).batch == batch
