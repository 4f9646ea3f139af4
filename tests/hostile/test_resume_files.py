"""Training checkpoints of strangers are refused with one message before Lightning restores them."""

from __future__ import annotations

import generators
import pytest
import torch

from d2csr.checkpoints.resume_state import read_training_state
from d2csr.errors import CheckpointError
from d2csr.training.state import TrainingState, random_state

CASES = generators.resume_files()


def test_there_are_twenty_of_them():
    assert len(CASES) >= 20


def test_the_checkpoint_that_they_are_made_of_is_read(tmp_path):
    path = tmp_path / "good.ckpt"
    content = generators.training_content()
    path.write_bytes(generators.saved(content))
    state = read_training_state(path)
    assert state["step"] == 3
    assert state["optimization"] == "alternating"
    assert state["settings"] == {"seed": 1}
    position = TrainingState(**state["position"])
    assert (position.epoch, position.batch, position.closed) == (1, 0, True)
    now = random_state()
    assert torch.equal(position.random[0]["torch"], content["position"]["random"][0]["torch"])
    assert position.random[0].keys() == now.keys()


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name, tmp_path):
    path = tmp_path / "hostile.ckpt"
    path.write_bytes(CASES[name])
    with pytest.raises(CheckpointError, match=r"hostile\.ckpt: (a malformed|a broken|holds weights alone)") as error:
        read_training_state(path)
    assert len(str(error.value)) < 1000


@pytest.mark.slow
def test_none_takes_memory_or_time(load_limited):
    outcomes = load_limited(CASES, how="resume")
    assert {name: error for name, error in outcomes.items() if error[0] != "CheckpointError"} == {}
