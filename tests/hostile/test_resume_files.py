"""Training checkpoints of strangers are refused with one message before Lightning restores them."""

from __future__ import annotations

import re

import generators
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from refusals import assert_refused_within_limits, refusal

from d2csr.checkpoints.own import read_training_state
from d2csr.errors import CheckpointError
from d2csr.resumable_loop import TrainingState, random_state
from d2csr.training.resume import restoring

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of the opcode STRING, in pickletools
CASES = generators.resume_files()


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 20


def test_the_undamaged_checkpoint_is_read(tmp_path):
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
    message = refusal(tmp_path / "hostile.ckpt", CASES[name], read_training_state)
    assert re.search(r"hostile\.ckpt: (a malformed|a broken|holds weights alone)", message)


@pytest.mark.slow
def test_refusals_need_little_memory_and_time(load_limited):
    assert_refused_within_limits(load_limited, CASES, how="resume")


@pytest.fixture(scope="module")
def lightning_checkpoint(tmp_path_factory):
    """The content of a checkpoint of Lightning's own example."""
    trainer = pl.Trainer(accelerator="cpu", max_steps=1, **QUIET)
    trainer.fit(BoringModel())
    path = tmp_path_factory.mktemp("lightning") / "good.ckpt"
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


@pytest.mark.parametrize(
    "entries",
    [
        {"loops": {"fit_loop": {"state_dict": 1}}},
        {"optimizer_states": [{"state": {}, "param_groups": []}]},
        {"optimizer_states": [{"state": {}, "param_groups": [{"params": [0, 1, 2]}]}]},
    ],
)
def test_state_that_lightning_cannot_restore_is_a_checkpoint_error(entries, lightning_checkpoint, tmp_path):
    path = tmp_path / "hostile.ckpt"
    torch.save(lightning_checkpoint | entries, path)
    trainer = pl.Trainer(accelerator="cpu", max_steps=2, **QUIET)
    with (
        pytest.raises(CheckpointError, match=r"hostile\.ckpt: its training state cannot be restored \(\w+: "),
        restoring(path),
    ):
        trainer.fit(BoringModel(), ckpt_path=path, weights_only=True)


def test_an_error_of_the_training_itself_keeps_its_type(tmp_path):
    with pytest.raises(KeyError), restoring(tmp_path / "good.ckpt"):
        raise KeyError("elsewhere")


@pytest.mark.parametrize("count", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_damage_in_the_pickle_ends_in_a_message(count, tmp_path):
    path = tmp_path / "damaged.ckpt"
    data = generators.saved(generators.training_content())
    refused = 0
    for broken in generators.damaged(generators.data_pickle(data), count, seed=0):
        path.write_bytes(generators.rewritten(data, data_pkl=broken))
        try:
            TrainingState(**read_training_state(path)["position"])
        except CheckpointError:
            refused += 1
    assert refused > count / 2
