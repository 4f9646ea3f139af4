from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from d2csr.data.check import prepare
from d2csr.data.dataset import ErrorReportingDataset
from d2csr.data.images import read_rgb
from d2csr.data.worker_loader import WorkerLoader
from d2csr.errors import DataError
from loader_items import Noise, Own, Ram

TESTS = Path(__file__).parents[1]


def loader(items, **settings):
    settings = {"batch_size": 3, "num_workers": 2, "persistent_workers": True, **settings}
    return WorkerLoader(items, **settings)


def assert_equal(found, expected):
    found = list(found)
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        assert list(batch) == list(other)
        assert all(torch.equal(batch[name], other[name]) for name in batch)
        assert all(batch[name].dtype == other[name].dtype for name in batch)


def expected(items, batch_size=3):
    return list(DataLoader(items, batch_size))


def gone(pid):
    """Return whether a process has ended and is no zombie."""
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_those_of_one_process_and_are_not_overwritten_later(workers):
    batches = loader(Noise(25), num_workers=workers, persistent_workers=workers > 0)
    assert_equal(batches, expected(Noise(25)))
    assert_equal(batches, expected(Noise(25)))


@pytest.mark.slow
def test_batches_pass_through_temporary_files_where_there_are_none_in_memory(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "memfd_create")  # as on macOS
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert_equal(loader(Noise(25)), expected(Noise(25)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_images_of_several_sizes_pass_one_a_batch():
    assert_equal(loader(Noise(24, larger=4), batch_size=1), expected(Noise(24, larger=4), 1))


def test_images_of_several_sizes_in_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"lr: a batch needs arrays of one size, got .*\(3, 8, 8\)"):
        list(loader(Noise(24, larger=4)))


@pytest.mark.slow
def test_images_of_several_megabytes_pass():
    assert_equal(loader(Noise(4, 1500), batch_size=1), expected(Noise(4, 1500), 1))


def test_a_worker_does_not_import_torch_and_has_one_thread():
    said = list(loader(Own(), batch_size=1))
    assert {word for batch in said for word in batch["torch"]} == {"False"}
    assert len({batch["pid"].item() for batch in said} - {os.getpid()}) == 2
    assert {batch["threads"].item() for batch in said} == {1}


def test_an_epoch_that_is_left_early_changes_no_later_batch():
    batches = loader(Noise())
    for _ in range(5):
        next(iter(batches))
    pids = batches.worker_pids()
    assert_equal(batches, expected(Noise()))
    assert batches.worker_pids() == pids


@pytest.mark.slow
def test_a_former_iteration_gives_no_batch_of_the_present_one():
    batches = loader(Noise())
    former = iter(batches)
    next(former)
    present = iter(batches)
    with pytest.raises(RuntimeError, match="a newer iteration"):
        next(former)
    assert_equal(present, expected(Noise()))


@pytest.mark.parametrize("broken", [0, 13])
def test_an_error_in_a_worker_reaches_the_training_without_a_traceback_and_the_next_epoch_is_whole(broken):
    batches = loader(Noise(24, broken=broken))
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            list(batches)
        assert str(caught.value) == f"item {broken} is broken"
        assert caught.value.__cause__ is None


def test_a_defect_in_a_worker_keeps_its_class_and_shows_its_traceback():
    with pytest.raises(KeyError, match="no such name") as caught:
        list(loader(Noise(defect=2)))
    assert "in __getitem__" in str(caught.value.__cause__)


def test_ranks_get_the_errors_alone():
    stand_in = {"lr": np.zeros((3, 4, 4), np.uint8), "hr": np.zeros((3, 99, 99), np.uint8), "index": -1}
    found = list(loader(ErrorReportingDataset(Noise(24, broken=13), stand_in)))
    assert [batch.get("error") for batch in found] == [None] * 4 + [["item 13 is broken"]] + [None] * 3
    assert_equal(found[:4], expected(Noise())[:4])
    assert found[4]["lr"].shape == (1, 3, 4, 4)
    assert found[4]["index"].tolist() == [-1]


@pytest.mark.parametrize("killed", [0, 13])
def test_a_killed_worker_ends_the_training(killed):
    batches = loader(Noise(24, killed=killed))
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid \d+\) is killed by signal: 9"):
        list(batches)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_workers_ignore_the_signals_that_stop_a_training(number):
    assert_equal(loader(Noise(24, killed=5, signal=number)), expected(Noise()))


def test_signals_during_the_start_of_a_worker_are_ignored():
    batches = loader(Noise())
    first = iter(batches)
    for pid in batches.worker_pids():
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert_equal(first, expected(Noise()))


@pytest.mark.slow
def test_workers_end_with_their_loader_and_leave_no_zombie_and_no_descriptor():
    before = len(list(Path("/proc/self/fd").iterdir()))
    batches = loader(Noise())
    next(iter(batches))
    pids = batches.worker_pids()
    assert len(pids) == 2
    del batches
    assert all(map(gone, pids))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class Task(pl.LightningModule):
    def __init__(self, pids):
        super().__init__()
        self.pids = pids

    def training_step(self, batch, index):
        self.pids.update(self.trainer.train_dataloader.worker_pids())

    def validation_step(self, batch, index):
        assert batch["lr"].shape == (3, 3, 4, 4)

    def configure_optimizers(self):
        return None


@pytest.mark.slow
def test_lightning_trains_and_ends_the_workers(tmp_path):
    pids: set[int] = set()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, val_check_interval=4, **quiet)
    trainer.fit(Task(pids), loader(Noise()), loader(Noise(6)))
    assert len(pids) == 2
    assert all(map(gone, pids))


ORPHANS = """
import os, sys, time
from d2csr.data.worker_loader import WorkerLoader
from loader_items import Noise
batches = WorkerLoader(Noise(slow=4), 3, num_workers=2, persistent_workers=True)
next(iter(batches))
print(*batches.worker_pids(), flush=True)
{end}
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["time.sleep(600)", "sys.exit(0)", "raise ValueError"])
def test_no_worker_outlives_its_process(end):
    """The main module is no file, and has no guard."""
    code = ORPHANS.format(end=end)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        if "sleep" in end:
            process.kill()
    assert len(pids) == 2
    limit = time.monotonic() + 30
    while not all(map(gone, pids)):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_batches_are_read_into_pinned_memory(monkeypatch):
    empty, pinned = torch.empty, []

    def record(*arguments, pin_memory=False, **settings):
        pinned.append(pin_memory)
        return empty(*arguments, **settings)

    images = expected(Noise(6))
    monkeypatch.setattr(torch, "empty", record)
    assert_equal(loader(Noise(6), pin_memory=True), images)
    assert pinned == [True] * 4


def test_a_dataset_that_a_worker_cannot_import_is_named(monkeypatch):
    monkeypatch.setattr(Noise, "__module__", "of_nobody")
    monkeypatch.setitem(sys.modules, "of_nobody", sys.modules[__name__])
    with pytest.raises(ModuleNotFoundError, match="of_nobody"):
        list(loader(Noise()))


def test_a_worker_that_cannot_start_is_reported_with_its_own_message(monkeypatch, capfd):
    batches = loader(Noise())
    monkeypatch.setattr(sys, "path", [str(TESTS / "nowhere")])
    with pytest.raises(RuntimeError, match=r"ended with status 1; its message is in the standard error output"):
        list(batches)
    assert "Error" in capfd.readouterr().err


def test_the_images_in_memory_are_shared_with_the_workers_and_not_copied(pair, tmp_path):
    pairs = [pair(number, (5, 4), (10, 8)) for number in range(3)]
    _, source = prepare(lambda: pairs, scale=2, cache="ram", cache_dir=tmp_path)
    pids = [batch["pid"].item() for batch in loader(Ram(source), batch_size=1)]
    assert os.getpid() not in pids
    for named, images in zip(pairs, (source[0], source[1], source[2]), strict=True):
        for path, image in zip((named.lr, named.hr), images, strict=True):
            assert np.array_equal(image, read_rgb(path) + np.uint8(7))
    descriptor = source.cache.descriptor
    del image, images
    del source
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
