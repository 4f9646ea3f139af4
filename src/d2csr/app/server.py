"""The server of the page: address, warning, start and end."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import uvicorn

from d2csr.app.job_queue import JobQueue
from d2csr.app.processing import Limits, NamedModel, process
from d2csr.app.web_app import build_app
from d2csr.errors import ConfigError
from d2csr.inference.runner import Inference

_MAX_CONNECTIONS = 200
_PATIENCE = 3  # seconds for open requests at the end

_log = logging.getLogger(__name__)


def serve(
    models: Sequence[NamedModel],
    inference: Inference,
    limits: Limits,
    *,
    host: str,
    port: int,
    names: Collection[str] = (),
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; uploads and results are removed at the end.

    Only the own machine reaches the host 127.0.0.1; the port 0 is any free one. ``names`` are further host names of
    this server, for example that of a reverse proxy.

    Raises:
        ConfigError: the address cannot be used.
    """
    listening = listen(host, port)
    if not is_loopback(host):
        _log.warning(
            "host=%s: everyone who reaches this machine can upload images and use its processor. There is no password "
            "and no encryption.",
            host,
        )
    with listening, queue_in_folder(models, inference, limits) as queue:
        app = build_app(queue, models, limits, {*names, host, socket.gethostname()})
        _log.info("http://%s:%d/ (Ctrl-C ends it)", address_of(host), listening.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_PATIENCE,
        )
        with ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; raise a ConfigError if it is in use, or not of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise ConfigError(f"host: {host} is no address of this machine ({error.strerror}).") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(
            f"host={host} port={port}: cannot be used ({reason}). Choose another port; port=0 is any free one."
        ) from None


def address_of(host: str) -> str:
    """Return how a browser on this machine writes a host: 0.0.0.0 and :: are all of its addresses."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{shown}]" if ":" in shown else shown


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def queue_in_folder(models: Sequence[NamedModel], inference: Inference, limits: Limits) -> Iterator[JobQueue]:
    """Yield a queue with a temporary folder, which no other user can read; remove both at the end."""
    with tempfile.TemporaryDirectory(prefix="d2csr-app-", ignore_cleanup_errors=True) as folder:
        work = functools.partial(process, models=models, inference=inference, max_pixels=limits.max_pixels)
        queue = JobQueue(work, Path(folder), limits.queue)
        try:
            yield queue
        finally:
            queue.close()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program by an exception, so that the temporary folder is removed.

    uvicorn repeats a signal after its end, and the default action would end the process at once.
    """

    def exit_(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    def terminate(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGTERM)  # of which uvicorn takes care

    handlers: dict[int, Callable[[int, object], None]] = {signal.SIGTERM: exit_}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = terminate
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
