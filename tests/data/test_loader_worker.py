from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from d2csr.data import loader_worker
from d2csr.data.datamodule import PairDataModule
from d2csr.data.loader_worker import ignore_signals
from d2csr.errors import DataError


@pytest.fixture
def with_worker(pair, tmp_path: Path) -> PairDataModule:
    """A data module whose one worker prepares two test images."""
    pairs = [pair(number, (5, 4), (10, 8)) for number in (1, 2)]
    path = tmp_path / "test.txt"
    path.write_text("".join(f"{p.lr} {p.hr}\n" for p in pairs))
    datamodule = PairDataModule(scale=2, test_list=str(path), num_workers=1, cache_dir=str(tmp_path / "cache"))
    datamodule.setup("test")
    return datamodule


@pytest.fixture
def long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that has no place for a socket: its path has 90 bytes or more."""
    folder = tmp_path / ("x" * max(1, 90 - len(str(tmp_path))))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def at_most_a_minute() -> Iterator[None]:
    """Raise a TimeoutError after a minute: a worker that cannot pass on its batch is waited for without an end."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


def test_batches_pass_with_a_long_temporary_folder(
    with_worker: PairDataModule, long_temporary_folder: Path, at_most_a_minute: None
) -> None:
    shapes = [batch["hr"].shape for batch in with_worker.test_dataloader()]
    assert shapes == [(1, 3, 10, 8)] * 2
    assert tempfile.gettempdir() == str(long_temporary_folder)  # of this process


def test_without_a_short_folder_the_error_names_tmpdir(
    with_worker: PairDataModule,
    long_temporary_folder: Path,
    at_most_a_minute: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader_worker, "_SHORT_FOLDERS", ("/nowhere",))
    with pytest.raises(DataError, match=f"TMPDIR={long_temporary_folder}: .* at most 71 bytes"):
        next(iter(with_worker.test_dataloader()))


def test_a_worker_ignores_the_first_sigterm_and_ends_at_the_second() -> None:
    pid = os.fork()
    if pid == 0:
        ignore_signals()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            os.kill(os.getpid(), number)
        alive = os.fork()
        if alive == 0:
            os._exit(42)
        status = os.waitstatus_to_exitcode(os.waitpid(alive, 0)[1])
        if status == 42:
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
