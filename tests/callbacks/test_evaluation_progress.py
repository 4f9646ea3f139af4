"""Lines and bar of an evaluation, with a clock that is set by hand."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from d2csr.callbacks import evaluation_progress
from d2csr.callbacks.evaluation_progress import EvaluationProgressBar


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Evaluate 20 images of four seconds each, and return what was printed."""

    def run(disabled=False):
        now = [100.0]
        monkeypatch.setattr(evaluation_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
        bar = EvaluationProgressBar()
        if disabled:
            bar.disable()
        bar.on_test_start(SimpleNamespace(num_test_batches=[20]), None)
        for _ in range(20):
            now[0] += 4
            bar.on_test_batch_end()
        bar.on_test_end()
        return capsys.readouterr().out

    return run


def test_without_a_terminal_there_are_lines(evaluate):
    lines = evaluate().splitlines()
    assert lines[:2] == ["evaluating 20 images", "image 3/20, 0.25 images/s, 68 s left"]
    assert lines[-1] == "image 18/20, 0.25 images/s, 8 s left"
    assert len(lines) == 7


def test_on_a_terminal_there_is_a_bar(evaluate, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    out = evaluate()
    assert "evaluation: 100%" in out
    assert "20/20" in out
    assert "0.25 images/s" not in out


def test_other_processes_are_silent(evaluate):
    assert evaluate(disabled=True) == ""
