from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator

import pytest

from d2csr.app import server
from d2csr.app.processing import Limits
from d2csr.errors import ConfigError
from d2csr.inference import Inference

LIMITS = Limits(max_pixels=10_000, max_megabytes=1, queue=10)


def test_a_port_in_use_is_named() -> None:
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"host=127.0.0.1 port={port}: cannot be used .* port=0"):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1"])
def test_a_foreign_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=rf"host(=|: ){host}"):
        server.listen(host, 0)


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)],
)
def test_only_loopback_is_private(host: str, own: bool, monkeypatch, caplog) -> None:
    monkeypatch.setattr(server, "listen", lambda host, port: socket.create_server(("127.0.0.1", 0)))
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: None)
    with caplog.at_level(logging.INFO):
        server.serve([], Inference(), LIMITS, host=host, port=0)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"host={host}: everyone who reaches this machine" in record.getMessage() for record in warned] == (
        [] if own else [True]
    )


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("sr.local", "sr.local")]
)
def test_the_printed_address_can_be_opened(host: str, shown: str) -> None:
    assert server.address_of(host) == shown


def test_the_files_are_removed_at_the_end() -> None:
    with server.queue_in_folder([], Inference(), LIMITS) as queue:
        folder = queue.reserve("a", 0, keep_leaves=False).folder
        assert folder.parent.stat().st_mode & 0o777 == 0o700  # no other user reads it
    assert not folder.parent.exists()


@pytest.fixture
def hangup_ends() -> Iterator[None]:
    """Undo ``nohup``, under which the server ignores SIGHUP."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_program_by_an_exception(number: int, hangup_ends) -> None:
    with server.ended_by_signals(), pytest.raises(SystemExit) as ended:
        signal.raise_signal(number)
    assert ended.value.code == 128 + signal.SIGTERM
