from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback

import d2csr
from d2csr.checkpoints import save_model
from d2csr.data.datamodule import PairDataModule
from d2csr.errors import CheckpointError, DataError
from d2csr.training import build_task
from d2csr.training.run import checkpoint_callbacks, train

MODES = ["alternating", "joint", "sequential"]


@pytest.fixture
def datamodule(tmp_path):
    """Four pairs of small images; two batches of two patches in an epoch."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(4):
        lr = random.integers(0, 256, (14, 13, 3), dtype=np.uint8)
        Image.fromarray(lr).save(tmp_path / f"lr{number}.png")
        Image.fromarray(lr.repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / f"hr{number}.png")
        lines.append(f"lr{number}.png hr{number}.png\n")
    (tmp_path / "train.txt").write_text("".join(lines))

    def build(**settings):
        paths = {"train_list": str(tmp_path / "train.txt")}
        return PairDataModule(scale=2, batch_size=2, patch_size=8, num_workers=0, seed=3, **paths, **settings)

    return build


@pytest.fixture
def run(datamodule, trainer, tiny, tmp_path):
    """Train for some epochs into a run folder; returns the task and what was returned."""

    def start(name, epochs, mode="alternating", callbacks=(), **kwargs):
        torch.manual_seed(0)
        task = build_task(optimization=mode, **tiny, **({"divergence_epochs": 1} if mode == "sequential" else {}))
        folder = tmp_path / name
        kept = [*checkpoint_callbacks(folder), *callbacks]
        made = trainer(max_epochs=epochs, callbacks=kept, enable_checkpointing=True, num_sanity_val_steps=0)
        return task, train(task, datamodule(), made, run_dir=folder, **kwargs)

    return start


class Seen(Callback):
    """The batches as the network gets them."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.batches.append(batch["lr"].clone())


def test_a_run_leaves_its_last_and_best_checkpoint(run, tmp_path):
    task, path = run("a", epochs=2)
    assert path == tmp_path / "a" / "checkpoints" / "best.ckpt"
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    kept = d2csr.load_model(path.with_name("last.ckpt")).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in task.network.state_dict().items())


def test_checkpoints_know_their_data(run, tmp_path):
    _, path = run("a", epochs=1)
    about = torch.load(path, weights_only=True)["d2csr"]
    assert about["data"]["train_list"] == str(tmp_path / "train.txt")
    assert about["data"]["scale"] == 2


def test_the_network_gets_floats_between_zero_and_one(run):
    seen = Seen()
    run("a", epochs=1, callbacks=[seen])
    for batch in seen.batches:
        assert batch.dtype == torch.float32
        assert batch.shape == (2, 3, 8, 8)
        assert 0.5 < batch.max() <= 1
        assert torch.equal((batch * 255).round() / 255, batch)


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_ends_as_one_that_never_stopped(mode, run, tmp_path):
    whole_seen, first_seen, second_seen = Seen(), Seen(), Seen()
    whole, _ = run("whole", epochs=4, mode=mode, callbacks=[whole_seen])
    run("first", epochs=2, mode=mode, callbacks=[first_seen])
    stopped = {path: path.read_bytes() for path in (tmp_path / "first" / "checkpoints").iterdir()}
    resumed, _ = run("second", epochs=4, mode=mode, callbacks=[second_seen], resume=tmp_path / "first")
    batches = first_seen.batches + second_seen.batches
    assert len(batches) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole_seen.batches, batches, strict=True))
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.network.state_dict().items())
    assert {path: path.read_bytes() for path in (tmp_path / "first" / "checkpoints").iterdir()} == stopped


def test_weights_alone_can_be_a_start(run):
    _, path = run("first", epochs=1)
    began = {}

    class Start(Callback):
        def on_train_start(self, trainer, task):
            began.update({name: value.clone() for name, value in task.network.state_dict().items()})
            began["epoch"] = trainer.current_epoch

    run("second", epochs=1, callbacks=[Start()], init_from=path)
    assert began.pop("epoch") == 0
    expected = d2csr.load_model(path).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in began.items())


def refuse(task, **kwargs):
    """Expect a run to be refused before anything of the trainer or the data is touched."""
    with pytest.raises(CheckpointError) as error:
        train(task, None, None, run_dir="nowhere", **kwargs)
    return str(error.value)


def test_resuming_another_architecture_is_refused_with_what_differs(run, tiny, tmp_path):
    run("a", epochs=1)
    other = build_task(optimization="alternating", **{**tiny, "features": 32})
    message = refuse(other, resume=tmp_path / "a")
    assert "last.ckpt: a checkpoint of another architecture: features is 16 in the checkpoint and 32 here" in message


def test_resuming_another_optimization_is_refused(run, tiny, tmp_path):
    run("a", epochs=1)
    message = refuse(build_task(optimization="joint", **tiny), resume=tmp_path / "a")
    assert "was trained with optimization=alternating; resume with that, not with joint" in message


def test_resuming_exported_weights_is_refused(tiny, tmp_path):
    task = build_task(optimization="joint", **tiny)
    save_model(tmp_path / "export.ckpt", task.network)
    message = refuse(task, resume=tmp_path / "export.ckpt")
    assert "export.ckpt: holds weights alone; use init_from=… instead of resume=…" in message


def test_resuming_an_official_checkpoint_is_refused(tiny, golden):
    message = refuse(build_task(optimization="joint", **tiny), resume=golden / "net-x2-f16-b1.pkl")
    assert "an official checkpoint holds weights alone; use init_from=…" in message


def test_resuming_from_nothing_is_refused(tiny, tmp_path):
    task = build_task(optimization="joint", **tiny)
    assert "none.ckpt: no such checkpoint" in refuse(task, resume=tmp_path / "none.ckpt")
    assert "a folder without checkpoints/last.ckpt" in refuse(task, resume=tmp_path)


def test_resuming_and_starting_from_weights_exclude_each_other(tiny):
    message = refuse(build_task(optimization="joint", **tiny), resume="a", init_from="b")
    assert "resume=… and init_from=… exclude each other" in message


def test_starting_from_another_architecture_is_refused(tiny, golden):
    message = refuse(build_task(optimization="joint", **tiny), init_from=golden / "net-x4-f16-b1.pkl")
    assert "scale is 4 in the checkpoint and 2 here" in message


def test_a_bad_pair_stops_the_run_before_its_first_step(run, tmp_path):
    (tmp_path / "hr2.png").unlink()
    with pytest.raises(DataError, match=r"train\.txt:3: .*hr2\.png: no such image"):
        run("a", epochs=1)
