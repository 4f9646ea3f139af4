"""Output of the progress bars, with a clock that is set by hand."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from d2csr.callbacks import progress_bar as progress
from d2csr.callbacks.progress_bar import EvaluationProgressBar, TrainingProgressBar
from d2csr.training import OPTIMIZATIONS
from helpers import build_task, checkpoint_callbacks

STEP, VALIDATION = 2.0, 5.0


class Clock(Callback):
    """Steps of two seconds, validations of five."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))

    def on_train_batch_start(self, *_):
        self.now += STEP

    def on_validation_batch_start(self, *_):
        self.now += VALIDATION


@pytest.fixture
def shown(tiny, batches, trainer, monkeypatch, capsys):
    """Train for four epochs of three steps, with a validation each; returns what was printed, line by line."""
    clock = Clock(monkeypatch)

    def train(mode="joint", lines_every=0.0, callbacks=(), ckpt_path=None, **settings):
        monkeypatch.setattr(progress, "_SHORTEST", lines_every)
        torch.manual_seed(0)
        stage = {"divergence_epochs": 2} if mode == "sequential" else {}
        task = build_task(optimization=mode, **tiny, **stage)
        val = [{"lr": torch.rand(1, 3, 8, 8), "hr": torch.rand(1, 3, 16, 16)}]
        settings = {"max_epochs": 4, "enable_progress_bar": True, "num_sanity_val_steps": 0, **settings}
        made = trainer(callbacks=[clock, TrainingProgressBar(), *callbacks], **settings)
        loaders = (DataLoader(batches, batch_size=None), DataLoader(val, batch_size=None))
        made.fit(task, *loaders, ckpt_path=ckpt_path, weights_only=True)
        return capsys.readouterr().out.splitlines(), made

    return train


@pytest.mark.parametrize("mode", list(OPTIMIZATIONS))
def test_lines_hold_progress_loss_scores_and_time_left(mode, shown, monkeypatch):
    monkeypatch.setattr(progress, "_SHARE", 0.0)
    lines, trainer = shown(mode)
    assert lines[0] == "training from step 0 to 12"
    assert not [line for line in lines if re.search(r"[\x00-\x1f]", line)]
    steps = [line for line in lines if "samples/s" in line]
    # The first step has no speed; the last one is shown twice, with its validation.
    assert [int(re.search(r"step (\d+)/12", line)[1]) for line in steps] == [*range(2, 13), 12]
    assert all(re.search(r"loss \d\.\d+, ", line) for line in steps)
    assert all(", 1 samples/s, " in line for line in steps)
    seventh = steps[5]  # 5 steps are left; the last 6 took 2 s each and 5 s for each of 2 validations
    assert seventh.startswith("epoch 2/4, step 7/12, ")
    assert seventh.endswith(", 0:00:18 left")
    psnr = trainer.callback_metrics["val/psnr"].item()
    assert steps[-1].startswith("epoch 4/4, step 12/12, ")
    assert f"PSNR {psnr:.2f} dB" in steps[-1]
    assert steps[-1].endswith(", 0:00:00 left")
    validations = [line for line in lines if "SSIM" in line]
    assert [line.split(":")[0] for line in validations] == [f"epoch {n}/4, step {3 * n}" for n in (1, 2, 3, 4)]
    scores = [float(re.search(r"PSNR (\S+) dB", line)[1]) for line in validations]
    assert scores[-1] == pytest.approx(psnr, abs=0.005)
    best = [score == max(scores[: n + 1]) for n, score in enumerate(scores)]
    assert [line.endswith("the best so far") for line in validations] == best


@pytest.mark.slow
def test_the_intervals_of_lines_grow(shown, monkeypatch):
    """At first every four seconds, which are two steps; later by tenths of the time, up to sixteen seconds."""
    monkeypatch.setattr(progress, "_LONGEST", 16.0)
    lines, _ = shown(lines_every=4.0, max_epochs=34, check_val_every_n_epoch=1000)
    steps = [int(re.search(r"step (\d+)/102", line)[1]) for line in lines if "samples/s" in line]
    gaps = [b - a for a, b in pairwise(steps)][:-1]  # the last line comes with the end
    assert gaps[:5] == [2] * 5
    assert max(gaps) == 8
    assert gaps == sorted(gaps)
    assert steps[-1] == 102


def test_a_resumed_run_continues_the_count_and_knows_the_best_score(shown, tmp_path):
    kept = {"enable_checkpointing": True}
    shown(max_epochs=2, callbacks=checkpoint_callbacks(tmp_path / "first"), **kept)
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    [best] = [state for state in content["callbacks"].values() if state.get("monitor") == "val/psnr"]
    best["best_model_score"] = torch.tensor(99.0)
    torch.save(content, last)
    lines, _ = shown(ckpt_path=last, callbacks=checkpoint_callbacks(tmp_path / "first"), **kept)
    assert lines[0] == "training from step 6 to 12"
    assert len([line for line in lines if "SSIM" in line]) == 2
    assert not [line for line in lines if "the best so far" in line]


def test_max_steps_is_the_total(shown):
    lines, _ = shown(max_steps=5, max_epochs=None)
    assert lines[0] == "training from step 0 to 5"
    assert "step 5/5, " in lines[-1]


def test_a_terminal_gets_a_bar_and_a_line_for_each_validation(shown, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")
    text = "\n".join(shown()[0])
    assert "step 7/12  58%|" in text
    assert re.search(r"\| loss \S+, PSNR \S+ dB, 1 samples/s, 0:00:18 left", text)
    assert len(re.findall(r"SSIM", text)) == 4
    assert "training from step" not in text


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Evaluate 20 images of four seconds each, and return what was printed."""

    def run(disabled=False):
        now = [100.0]
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
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


def test_an_evaluation_without_a_terminal_has_lines(evaluate):
    lines = evaluate().splitlines()
    assert lines[:2] == ["evaluating 20 images", "image 3/20, 0.25 images/s, 68 s left"]
    assert lines[-1] == "image 18/20, 0.25 images/s, 8 s left"
    assert len(lines) == 7


def test_an_evaluation_on_a_terminal_has_a_bar(evaluate, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    out = evaluate()
    assert "evaluation: 100%" in out
    assert "20/20" in out
    assert "0.25 images/s" not in out


def test_other_processes_of_an_evaluation_are_silent(evaluate):
    assert evaluate(disabled=True) == ""
