"""Training runs: checkpoints, resuming, early ends."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

import d2csr
from d2csr.callbacks import EMA
from d2csr.checkpoints import save_model
from d2csr.data.datamodule import PairDataModule
from d2csr.errors import CheckpointError, ConfigError, DataError, TrainingError
from d2csr.training.fit import train
from helpers import build_task, checkpoint_callbacks, mostly_slow
from pair_files import write_pairs

MODES = ["alternating", "joint", "sequential"]


@pytest.fixture
def datamodule(tmp_path):
    """Four pairs of small images; two batches of two patches in an epoch."""
    write_pairs(tmp_path, 4, 14, 13)

    def build(**settings):
        paths = {"train_list": str(tmp_path / "train.txt")}
        return PairDataModule(scale=2, batch_size=2, patch_size=8, num_workers=0, seed=3, **paths, **settings)

    return build


@pytest.fixture
def run(datamodule, trainer, tiny, tmp_path, caplog):
    """Train for some epochs into a run folder; returns the task and what was returned."""
    caplog.set_level("INFO", "d2csr")

    def start(name, epochs, mode="alternating", callbacks=(), max_steps=-1, **kwargs):
        torch.manual_seed(0)
        stages = {"divergence_epochs": 1} if mode == "sequential" else {}
        task = build_task(optimization=mode, **tiny, **stages, optimizer=kwargs.pop("optimizer", None))
        folder = tmp_path / name
        kept = {key: kwargs.pop(key) for key in ("settings", "every_n_steps", "every_minutes") if key in kwargs}
        every = [*checkpoint_callbacks(folder, **kept), *callbacks]
        settings = {"max_epochs": epochs, "max_steps": max_steps, "num_sanity_val_steps": 0}
        settings |= kwargs.pop("trainer_settings", {})
        made = trainer(callbacks=every, enable_checkpointing=True, **settings)
        return task, train(task, datamodule(), made, run_dir=folder, **kwargs)

    return start


class Seen(Callback):
    """The batches as the network gets them."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.batches.append(batch["lr"].clone())


def test_a_run_writes_its_last_and_best_checkpoint(run, tmp_path):
    task, path = run("a", epochs=2)
    assert path == tmp_path / "a" / "checkpoints" / "best.ckpt"
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    kept = d2csr.load_model(path.with_name("last.ckpt")).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in task.network.state_dict().items())


def test_checkpoints_hold_the_settings_of_their_data(run, tmp_path):
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


@pytest.mark.parametrize("mode", mostly_slow(MODES))
def test_a_resumed_run_is_identical_to_an_uninterrupted_one(mode, run, tmp_path):
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


class Draws(Callback):
    """Numbers from every generator, one of each in every batch."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, *args):
        self.drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))


@pytest.mark.slow
def test_random_numbers_continue_in_a_resumed_run(run, tmp_path):
    whole, first, second = Draws(), Draws(), Draws()
    for name, steps, draws in (("whole", 7, whole), ("first", 3, first)):
        random.seed(4)
        np.random.seed(4)
        run(name, epochs=-1, max_steps=steps, callbacks=[draws])
    run("second", epochs=-1, max_steps=7, callbacks=[second], resume=tmp_path / "first")
    assert first.drawn + second.drawn == whole.drawn
    assert len(whole.drawn) == 7


def test_init_from_loads_only_the_weights(run):
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


@pytest.fixture
def refuse(tmp_path):
    """Expect a run to be refused before the trainer or the data are used, and return the message."""

    def expect(task, **kwargs):
        with pytest.raises(CheckpointError) as error:
            train(task, None, None, run_dir=tmp_path / "nowhere", **kwargs)
        return str(error.value)

    return expect


def test_resuming_another_architecture_is_refused_with_what_differs(run, refuse, tiny, tmp_path):
    run("a", epochs=1)
    other = build_task(optimization="alternating", **{**tiny, "features": 32})
    message = refuse(other, resume=tmp_path / "a")
    assert "last.ckpt: a checkpoint of another architecture: features is 16 in the checkpoint and 32 here" in message


def test_resuming_another_optimization_is_refused(run, refuse, tiny, tmp_path):
    run("a", epochs=1)
    message = refuse(build_task(optimization="joint", **tiny), resume=tmp_path / "a")
    assert "was trained with optimization=alternating; resume with that, not with joint" in message


def test_resuming_an_incomplete_average_is_refused(run, tmp_path):
    run("a", epochs=1, callbacks=[EMA(0.9)])
    path = tmp_path / "a" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["average"].popitem()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: its training state cannot be restored \(KeyError: "):
        run("a", epochs=2, callbacks=[EMA(0.9)], resume=path)


def test_resuming_exported_weights_is_refused(refuse, tiny, tmp_path):
    task = build_task(optimization="joint", **tiny)
    save_model(tmp_path / "export.ckpt", task.network)
    message = refuse(task, resume=tmp_path / "export.ckpt")
    assert "export.ckpt: holds weights alone; use init_from=… instead of resume=…" in message


def test_resuming_an_official_checkpoint_is_refused(refuse, tiny, golden):
    message = refuse(build_task(optimization="joint", **tiny), resume=golden / "net-x2-f16-b1.pkl")
    assert "net-x2-f16-b1.pkl: holds weights alone; use init_from=…" in message


def test_resuming_from_nothing_is_refused(refuse, tiny, tmp_path):
    task = build_task(optimization="joint", **tiny)
    assert "none.ckpt: no such checkpoint" in refuse(task, resume=tmp_path / "none.ckpt")
    assert "a folder without checkpoints/last.ckpt" in refuse(task, resume=tmp_path)


def test_resuming_and_starting_from_weights_exclude_each_other(tiny, tmp_path):
    task = build_task(optimization="joint", **tiny)
    with pytest.raises(ConfigError, match="resume=… and init_from=… exclude each other"):
        train(task, None, None, run_dir=tmp_path / "nowhere", resume="a", init_from="b")
    assert not (tmp_path / "nowhere").exists()


def test_starting_from_another_architecture_is_refused(refuse, tiny, golden):
    message = refuse(build_task(optimization="joint", **tiny), init_from=golden / "net-x4-f16-b1.pkl")
    assert "scale is 4 in the checkpoint and 2 here" in message


def test_a_bad_pair_stops_the_run_before_its_first_step(run, tmp_path):
    (tmp_path / "hr2.png").unlink()
    with pytest.raises(DataError, match=r"train\.txt:3: .*hr2\.png: no such file"):
        run("a", epochs=1)


def state_of(path):
    return torch.load(path, weights_only=True)


def damage(path):
    """Cut the end off, as a full disk does."""
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4], ids=["in an epoch", "between two"])
def test_a_run_that_reached_max_steps_resumes_there(run, tmp_path, stop):
    """max_steps is a stop as any other: with more of them nothing is left out and nothing comes twice."""
    whole_seen, first_seen, second_seen = Seen(), Seen(), Seen()
    whole, _ = run("whole", epochs=-1, max_steps=7, callbacks=[whole_seen])
    run("first", epochs=-1, max_steps=stop, callbacks=[first_seen])
    assert state_of(tmp_path / "first" / "checkpoints" / "last.ckpt")["position"]["batch"] == stop % 2
    resumed, _ = run("second", epochs=-1, max_steps=7, callbacks=[second_seen], resume=tmp_path / "first")
    assert state_of(tmp_path / "second" / "checkpoints" / "last.ckpt")["position"]["step"] == 7
    batches = first_seen.batches + second_seen.batches
    assert len(batches) == 7
    assert all(torch.equal(a, b) for a, b in zip(whole_seen.batches, batches, strict=True))
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.network.state_dict().items())


@pytest.mark.slow
def test_the_best_checkpoint_can_be_resumed_too(run, tmp_path):
    whole, _ = run("whole", epochs=4)
    run("first", epochs=2)
    (tmp_path / "first" / "checkpoints" / "last.ckpt").unlink()
    (tmp_path / "first" / "checkpoints" / "previous.ckpt").unlink()
    resumed, _ = run("second", epochs=4, resume=tmp_path / "first")
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.network.state_dict().items())


def test_in_a_new_folder_the_best_checkpoint_is_the_best_of_both(run, tmp_path):
    _, path = run("first", epochs=1)
    content = state_of(path)
    score = next(state for name, state in content["callbacks"].items() if "Best" in name)["best_model_score"]
    assert score is not None
    states = state_of(path.with_name("last.ckpt"))
    name = next(name for name in states["callbacks"] if "Best" in name)
    # As if the first run had been far better than what comes now.
    states["callbacks"][name].update(best_model_score=score + 50, kth_value=score + 50)
    states["callbacks"][name]["best_k_models"] = {str(path): score + 50}
    torch.save(states, path.with_name("last.ckpt"))
    _, best = run("second", epochs=2, resume=tmp_path / "first")
    assert best == tmp_path / "second" / "checkpoints" / "best.ckpt"
    assert best.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("damaged", "resume", "used"),
    [
        (["last.ckpt"], "first", "previous.ckpt"),
        (["last.ckpt", "previous.ckpt"], "first/checkpoints/last.ckpt", "best"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(run, tmp_path, caplog, damaged, resume, used):
    run("first", epochs=2)
    folder = tmp_path / "first" / "checkpoints"
    for file in damaged:
        damage(folder / file)
    run("second", epochs=3, resume=tmp_path / resume)
    for file in damaged:
        assert f"{folder / file}: a broken or foreign checkpoint" in caplog.text
    assert f"resume: {folder / used}" in caplog.text
    assert state_of(tmp_path / "second" / "checkpoints" / "last.ckpt")["global_step"] == 6


def test_a_flipped_bit_is_noticed(run, tmp_path, caplog):
    run("first", epochs=2)
    path = tmp_path / "first" / "checkpoints" / "last.ckpt"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    with path.open("rb") as file:
        file.seek(largest.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    content[largest.header_offset + 30 + name + extra + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    run("second", epochs=3, resume=tmp_path / "first")
    assert f"{path}: a broken or foreign checkpoint" in caplog.text


def test_with_every_checkpoint_damaged_resuming_is_refused(run, refuse, tiny, tmp_path):
    run("first", epochs=2)
    folder = tmp_path / "first" / "checkpoints"
    for path in folder.iterdir():
        damage(path)
    message = refuse(build_task(optimization="alternating", **tiny), resume=tmp_path / "first")
    assert "best.ckpt: a broken or foreign checkpoint" in message


def test_auto_resumes_if_there_is_a_run(run, tmp_path):
    run("a", epochs=1, resume="auto")
    run("a", epochs=2, resume="auto")
    assert state_of(tmp_path / "a" / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert not (tmp_path / "a" / "checkpoints.1").exists()


def test_a_new_run_in_the_folder_of_another_renames_its_checkpoints(run, tmp_path, caplog):
    run("a", epochs=2)
    run("a", epochs=1)
    assert state_of(tmp_path / "a" / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert state_of(tmp_path / "a" / "checkpoints.1" / "last.ckpt")["global_step"] == 4
    assert "its checkpoints are now in" in caplog.text


@pytest.mark.parametrize("epochs", [2, 1])
def test_a_finished_run_is_logged_and_unchanged(run, tmp_path, caplog, epochs):
    _, path = run("a", epochs=2)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    _, again = run("a", epochs=epochs, resume=tmp_path / "a")
    assert again == path
    assert f"is finished already: epoch 2 (trainer.max_epochs={epochs}), step 4" in caplog.text
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_changed_settings_are_named_before_training(run, tmp_path, caplog):
    run("a", epochs=1, settings={"data": {"batch_size": 4, "num_workers": 2}})
    run("a", epochs=2, resume=tmp_path / "a", settings={"data": {"batch_size": 8, "num_workers": 0}})
    lines = [record.getMessage() for record in caplog.records if record.name == "d2csr.training.resume"]
    assert lines[1:] == [
        "resume: data.batch_size was 4, is 8",
        "resume: data.num_workers was 2, is 0",
        "resume: the weights will differ from those of an uninterrupted run, because of data.batch_size",
    ]


def test_a_changed_optimizer_setting_is_used(run, tmp_path):
    """Adam's state brings the old one along."""
    run("a", epochs=1)
    run("a", epochs=2, resume=tmp_path / "a", optimizer={"betas": [0.5, 0.9], "weight_decay": 0.25, "eps": 1e-4})
    for state in state_of(tmp_path / "a" / "checkpoints" / "last.ckpt")["optimizer_states"]:
        for group in state["param_groups"]:
            assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.5, 0.9), 0.25, 1e-4)


@pytest.mark.parametrize("settings", [{"every_n_steps": 0}, {"every_n_steps": 1.5}, {"every_minutes": -1}])
def test_an_impossible_interval_is_named(settings, tmp_path):
    [name] = settings
    with pytest.raises(ConfigError, match=rf"^{name}: must be"):
        checkpoint_callbacks(tmp_path, **settings)


@pytest.mark.parametrize(("settings", "count"), [({}, 4), ({"every_n_steps": 1}, 8), ({"every_minutes": 0}, 8)])
def test_the_last_checkpoint_is_written_as_often_as_set(run, monkeypatch, settings, count):
    written = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, path: (written.append(str(path)), save(content, path))[1])
    run("a", epochs=4, **settings)
    assert sum("/.last.ckpt" in path for path in written) == count + 1


@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_a_checkpoint_that_another_callback_saves_can_be_resumed(run, tmp_path, mode):
    class Save(Callback):
        def on_train_batch_end(self, trainer, task, *args):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole, _ = run("whole", epochs=3, mode=mode, callbacks=[Save()])
    resumed, _ = run("second", epochs=3, mode=mode, resume=tmp_path / "middle.ckpt")
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.network.state_dict().items())


def test_an_error_while_the_weights_change_writes_no_checkpoint(run, tmp_path):
    class Failing(Callback):
        def __init__(self, hook):
            setattr(self, hook, self.fail)

        def fail(self, trainer, *args):
            if trainer.fit_loop.epoch_loop.total_batch_idx == 3:
                raise ZeroDivisionError

    for hook, kept in (("on_train_batch_start", 3), ("on_train_batch_end", 2)):
        with pytest.raises(ZeroDivisionError):
            run(hook, epochs=4, mode="joint", callbacks=[Failing(hook)])
        position = state_of(tmp_path / hook / "checkpoints" / "last.ckpt")["position"]
        assert position["step"] == kept


class StopEarly(Callback):
    """Sets ``trainer.should_stop`` in a hook after some steps, as EarlyStopping does."""

    def __init__(self, hook, steps):
        self.steps = steps
        setattr(self, hook, self.stop)

    def stop(self, trainer, *args):
        trainer.should_stop = trainer.global_step >= self.steps and not trainer.sanity_checking


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "steps", "epoch", "batch"),
    [
        ("on_train_epoch_end", 4, 2, 0),
        ("on_train_batch_end", 3, 1, 1),
        ("on_train_batch_end", 4, 2, 0),
        ("on_validation_end", 4, 2, 0),
    ],
)
@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_a_run_that_stops_early_can_be_resumed_exactly(run, tmp_path, mode, hook, steps, epoch, batch):
    whole, _ = run("whole", epochs=5, mode=mode)
    run("first", epochs=5, mode=mode, callbacks=[StopEarly(hook, steps)])
    last = state_of(tmp_path / "first" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == steps
    assert (last["position"]["epoch"], last["position"]["batch"]) == (epoch, batch)
    resumed, _ = run("second", epochs=5, mode=mode, resume=tmp_path / "first")
    assert state_of(tmp_path / "second" / "checkpoints" / "last.ckpt")["global_step"] == 10
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.network.state_dict().items())


def test_early_stopping_of_lightning_ends_a_run_and_keeps_its_state(run, tmp_path):
    stop = EarlyStopping("train/fusion", mode="max", patience=1)
    run("a", epochs=20, callbacks=[stop], optimizer={"lr": 1e-2})
    last = state_of(tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert 0 < stop.stopped_epoch < 19
    assert last["position"]["epoch"] == stop.stopped_epoch + 1
    [kept] = [state for name, state in last["callbacks"].items() if "EarlyStopping" in name]
    assert kept["stopped_epoch"] == stop.stopped_epoch


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"fast_dev_run": True, "logger": True}, {"overfit_batches": 1}, {"limit_train_batches": 1}]
)
@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_shortened_runs_end_and_can_be_resumed(run, tmp_path, mode, settings):
    run("a", epochs=2, mode=mode, trainer_settings=settings)
    last = state_of(tmp_path / "a" / "checkpoints" / "last.ckpt")
    epochs = 1 if "fast_dev_run" in settings else 2
    assert (last["global_step"], last["position"]["epoch"]) == (epochs, epochs)
    run(
        "b", epochs=3, mode=mode, trainer_settings={} if "fast_dev_run" in settings else settings, resume=tmp_path / "a"
    )
    assert state_of(tmp_path / "b" / "checkpoints" / "last.ckpt")["global_step"] == (5 if epochs == 1 else 3)


def test_a_second_run_in_the_folder_of_a_live_one_is_refused(run, tmp_path):
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    folder = tmp_path / "a"
    run("a", epochs=1)
    before = {path: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    command = [sys.executable, "-c", code, folder / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        for resume in (None, "auto"):
            with pytest.raises(TrainingError, match="trains in this folder"):
                run("a", epochs=2, resume=resume)
        other.communicate(b"\n")
    assert {path: path.read_bytes() for path in (folder / "checkpoints").iterdir()} == before
    run("a", epochs=2, resume="auto")
