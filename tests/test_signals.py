"""Signals to this process and to a forked one."""

from __future__ import annotations

import os
import signal

import pytest

from d2csr.errors import Stopped
from d2csr.signals import SignalExchange, StopSignals


@pytest.fixture(autouse=True)
def restored():
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_recorded_and_the_handlers_are_restored(name: str) -> None:
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_DFL)
    with StopSignals(quiet=True) as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals(quiet=True) as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None


def test_handlers_can_be_installed_again() -> None:
    with StopSignals(quiet=True) as signals:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signals.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_a_signal_is_handed_over_to_the_former_handler() -> None:
    """As submitit does, which puts the job into the queue again."""
    seen = []
    signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    with StopSignals(quiet=True) as signals:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert seen == []
        signals.hand_over(Stopped("saved", signal.SIGUSR2))
    assert seen == [signal.SIGUSR2]


def test_ctrl_c_is_not_handed_over_to_python() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopSignals(quiet=True) as signals:
        signals.hand_over(Stopped("saved", signal.SIGINT))


def test_a_forked_worker_records_no_signal(capfd) -> None:
    with StopSignals() as signals:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0 if signals.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert capfd.readouterr().err == ""


def test_one_rank_gets_its_own_request_at_once() -> None:
    requests = SignalExchange(world_size=1)
    assert [requests.exchange(request) for request in (0, 17, 1)] == [0, 17, 1]
