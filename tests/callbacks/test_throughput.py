from __future__ import annotations

import pytest

from d2csr.callbacks import training_log as module


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_the_clock_stands_still_while_it_is_paused(clock):
    pace = module.Throughput()
    assert pace.samples_per_second == 0
    clock[0] += 2
    pace.count(4)
    pace.pause()
    clock[0] += 50
    assert pace.seconds == 2
    pace.resume()
    clock[0] += 2
    pace.resume()  # once more changes nothing
    pace.count(4)
    assert (pace.seconds, pace.samples, pace.steps) == (4, 8, 2)
    assert pace.samples_per_second == 2
    pace.restart()
    assert (pace.seconds, pace.samples, pace.steps) == (0, 0, 0)
