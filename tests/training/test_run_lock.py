"""The lock of a run folder, against another process."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d2csr.errors import TrainingError
from d2csr.training.run_lock import LOCK, lock_run_folder

# What d2csr.training.run_lock does, without the seconds of importing torch.
OTHER = """
import fcntl, os, socket, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    file.write(f"{socket.gethostname()} {os.getpid()}")
    file.flush()
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", OTHER, tmp_path / LOCK], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)


def test_a_second_process_is_refused_with_host_and_process_of_the_first(tmp_path: Path, other) -> None:
    with pytest.raises(TrainingError) as error, lock_run_folder(tmp_path):
        pass
    assert f"{tmp_path}: process {other.pid} on {socket.gethostname()} trains in this folder." in str(error.value)


def test_a_killed_process_releases_its_lock(tmp_path: Path, other) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with lock_run_folder(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{socket.gethostname()} {os.getpid()}\n"


def test_a_second_run_can_follow_the_first_one(tmp_path: Path, caplog) -> None:
    for _ in range(2):
        with lock_run_folder(tmp_path / "new" / "run"):
            pass
    assert caplog.text == ""


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    with lock_run_folder(tmp_path):
        pid = os.fork()
        if pid == 0:
            signal.pause()
    try:
        code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        subprocess.run([sys.executable, "-c", code, tmp_path / LOCK], check=True)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_without_locks_a_running_process_of_this_machine_is_noticed(tmp_path: Path, other, monkeypatch) -> None:
    no_locks(monkeypatch)
    with pytest.raises(TrainingError, match=f"process {other.pid} on"), lock_run_folder(tmp_path):
        pass


@pytest.mark.parametrize("owner", ["", "gone", "elsewhere"])
def test_without_locks_a_run_begins_with_a_warning(tmp_path: Path, other, monkeypatch, caplog, owner: str) -> None:
    no_locks(monkeypatch)
    if owner == "gone":
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    else:
        (tmp_path / LOCK).write_text("" if not owner else f"elsewhere.example {other.pid}")
    with lock_run_folder(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"{socket.gethostname()} {os.getpid()}\n"
    assert "this file system has no locks (" in caplog.text
    assert "Start no second training here." in caplog.text
