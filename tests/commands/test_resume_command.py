"""Trainings that are killed or stopped by a signal at any moment, against one without interruption."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pair_files import write_pairs

pytestmark = pytest.mark.slow

# 4 epochs of 10 batches, with a validation after every other one; the divergence loss works in every other epoch.
TINY = [
    *("data=pairs", "scale=2", "data.train_list=pairs.txt", "data.patch_size=8", "data.batch_size=2"),
    *("data.patches_per_image=5", "model.features=16", "model.groups=1", "model.blocks=1", "model.fusion_features=16"),
    *("model.divergence.after=-1", "model.divergence.period=2", "model.divergence.active=1", "trainer=cpu"),
    *("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", "trainer.log_every_n_steps=2"),
    *("trainer.enable_progress_bar=false", "checkpoint.every_n_steps=3", "model.ema_decay=0.9"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}


class Training:
    """A process that trains.

    Attributes:
        pid: its id.
        log: what it prints.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], int], folder: Path, arguments: list[str], patch: str) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        self._ask = ask
        self.pid = ask({"start": arguments, "folder": str(folder), "log": str(self.log), "patch": patch})

    def wait(self) -> int:
        return self._ask({"wait": self.pid})

    def text(self) -> str:
        return self.log.read_text()


Start = Callable[..., Training]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Callable[[dict[str, Any]], int]]:
    command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=default_interrupt
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(request: dict[str, Any]) -> int:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield ask
        process.stdin.close()
        process.wait(timeout=30)


def default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the background of a shell ignores it


@pytest.fixture
def start(zygote, tmp_path: Path) -> Start:
    """Start a training in the folder of the test, with four pairs of small images."""
    write_pairs(tmp_path, 4, 16, 14, "pairs.txt")

    def begin(*arguments: str, patch: str = "") -> Training:
        return Training(zygote, tmp_path, [*TINY, *arguments], patch)

    return begin


def finish(training: Training) -> str:
    status = training.wait()
    assert status == 0, training.text()
    assert "Traceback" not in training.text()
    return training.text()


def checkpoint(run: Path, name: str = "last.ckpt") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / name, map_location="cpu", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if determined(name)} for row in csv.DictReader(file)]


def determined(name: str) -> bool:
    """Speeds and memory are measured, not computed."""
    return name not in ("train/samples_per_second", "train/memory_gb")


def differences(first: Any, second: Any, name: str = "") -> list[str]:
    """Return where two nested structures differ, to the last bit."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [found for key in first for found in differences(first[key], second[key], f"{name}/{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for key, (a, b) in pairs for found in differences(a, b, f"{name}/{key}")]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [name]


def assert_same_run(found: Path, expected: Path) -> None:
    assert rows(found) == rows(expected)
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = checkpoint(found, name), checkpoint(expected, name)
        for state in (ours, theirs):
            for key in ("callbacks", "settings", "d2csr"):  # they hold paths
                del state[key]
        assert {"state_dict", "optimizer_states", "position", "loops"} <= ours.keys()
        assert differences(ours, theirs) == []


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.002)


def renewals(run: Path) -> Callable[[], int]:
    """Return a function that says how often the last checkpoint has been renewed since now, by its looks."""
    path, seen = run / "checkpoints" / "last.ckpt", set()

    def count() -> int:
        if path.exists():
            seen.add(path.stat().st_ino)
        return len(seen) - 1

    count()
    return count


@pytest.mark.parametrize(
    ("mode", "workers", "kills"), [("alternating", 0, 4), ("joint", 2, 3), ("sequential", 0, 3)], ids=lambda x: str(x)
)
def test_a_run_killed_at_random_moments_ends_as_one_without_interruption(
    start: Start, tmp_path: Path, mode: str, workers: int, kills: int
) -> None:
    # Twice as long as the others: a fast machine must not reach the end before the last kill.
    arguments = [f"optimization={mode}", f"data.num_workers={workers}", "trainer.max_epochs=8"]
    finish(start(*arguments, "hydra.run.dir=whole"))
    moments = random.Random(f"{mode} {workers}")
    for _ in range(kills):
        saved, enough = renewals(tmp_path / "run"), moments.randrange(3)
        training = start(*arguments, "hydra.run.dir=run", "resume=auto")
        wait_until(lambda: saved() >= enough, "a checkpoint")  # noqa: B023
        time.sleep(moments.uniform(0, 0.1))
        os.kill(training.pid, signal.SIGKILL)
        assert training.wait() == -signal.SIGKILL, training.text()
    assert checkpoint(tmp_path / "run")["position"]["step"] < 80, "killed too late to show anything"
    finish(start(*arguments, "hydra.run.dir=run", "resume=auto"))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


STOP_IN_STEP = """
from d2csr.training import JointTask
whole_step, calls = JointTask.training_step, []
def step(self, batch, batch_idx):
    calls.append(batch_idx)
    if len(calls) == {step}:
        {action}
    return whole_step(self, batch, batch_idx)
JointTask.training_step = step
"""
KILL = "import os; os.kill(os.getpid(), {})".format
IN_VALIDATION = """
from d2csr.training import JointTask
whole_step, calls = JointTask.validation_step, []
def step(self, batch, batch_idx):
    calls.append(batch_idx)
    if len(calls) == 3:
        {action}
    return whole_step(self, batch, batch_idx)
JointTask.validation_step = step
"""
IN_THE_FIFTH_CHECKPOINT = """
import torch
whole_save, calls = torch.save, []
def save(content, path):
    whole_save(content, path)
    calls.append(path)
    if len(calls) == 5:
        with open(path, "r+b") as file:
            file.truncate(50_000)
        {action}
torch.save = save
"""


@pytest.fixture(scope="module")
def whole(zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training in the mode joint that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    write_pairs(folder, 4, 16, 14, "pairs.txt")
    finish(Training(zygote, folder, [*TINY, "optimization=joint", "hydra.run.dir=run"], ""))
    return folder / "run"


@pytest.mark.parametrize(
    "patch",
    [IN_VALIDATION, IN_THE_FIFTH_CHECKPOINT, STOP_IN_STEP.replace("{step}", "17")],
    ids=["validation", "checkpoint", "step"],
)
def test_killed_at_a_bad_moment(start: Start, tmp_path: Path, whole: Path, patch: str) -> None:
    killed = start("optimization=joint", "hydra.run.dir=run", patch=patch.replace("{action}", KILL(9)))
    assert killed.wait() == -signal.SIGKILL, killed.text()
    finish(start("optimization=joint", "hydra.run.dir=run", "resume=run"))
    assert_same_run(tmp_path / "run", whole)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_killed_with_the_training_set_on_the_device(start: Start, tmp_path: Path, whole: Path) -> None:
    """It ends as a run that decodes each image when it is needed."""
    arguments = ["optimization=joint", "data.cache=device", "data.cache_dir=cache", "hydra.run.dir=run"]
    patch = STOP_IN_STEP.replace("{step}", "17").replace("{action}", KILL(9))
    killed = start(*arguments, patch=patch)
    assert killed.wait() == -signal.SIGKILL, killed.text()
    finish(start(*arguments, "resume=run"))
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("number", "patch"),
    [
        (signal.SIGTERM, STOP_IN_STEP.replace("{step}", "17")),
        (signal.SIGINT, STOP_IN_STEP.replace("{step}", "20")),
        (signal.SIGUSR1, STOP_IN_STEP.replace("{step}", "40")),
        (signal.SIGTERM, IN_VALIDATION),
    ],
    ids=["SIGTERM", "SIGINT-before-validation", "SIGUSR1-at-the-end", "SIGTERM-in-validation"],
)
def test_a_signal_saves_before_the_process_ends(
    start: Start, tmp_path: Path, whole: Path, number: signal.Signals, patch: str
) -> None:
    """And the run goes on exactly in another folder, too."""
    stopped = start("optimization=joint", "hydra.run.dir=run", patch=patch.replace("{action}", KILL(int(number))))
    assert stopped.wait() == 128 + number, stopped.text()
    text = stopped.text()
    assert "Traceback" not in text
    run = tmp_path / "run"
    assert text.count(f"stopped by {number.name} after step ") == 1
    assert f"; saved to {run / 'checkpoints' / 'last.ckpt'}." in text
    assert f"add to the same command: resume={run} hydra.run.dir={run}" in text
    before = {path: path.read_bytes() for path in run.rglob("*.c*") if path.is_file()}
    finish(start("optimization=joint", f"resume={run}", "hydra.run.dir=more"))
    assert_same_run(tmp_path / "more", whole)
    assert {path: path.read_bytes() for path in run.rglob("*.c*") if path.is_file()} == before


def test_workers_that_get_ctrl_c_let_the_training_save(start: Start, tmp_path: Path, whole: Path) -> None:
    arguments = "optimization=joint", "hydra.run.dir=run", "data.num_workers=2"
    patch = "import os; os.setpgrp()" + STOP_IN_STEP.replace("{step}", "17")
    for number in (signal.SIGINT, signal.SIGTERM):
        stopped = start(*arguments, "resume=auto", patch=patch.replace("{action}", f"os.killpg(0, {int(number)})"))
        assert stopped.wait() == 128 + number, stopped.text()
        assert "Traceback" not in stopped.text()
    assert checkpoint(tmp_path / "run")["position"]["step"] == 34
    finish(start(*arguments, "resume=auto"))
    assert_same_run(tmp_path / "run", whole)


def test_a_second_ctrl_c_ends_at_once(start: Start, tmp_path: Path) -> None:
    patch = STOP_IN_STEP.replace("{step}", "17").replace("{action}", f"{KILL(2)}; {KILL(2)}")
    assert start("optimization=joint", "hydra.run.dir=run", patch=patch).wait() == -signal.SIGINT
    assert checkpoint(tmp_path / "run")["position"]["step"] == 15


def test_a_second_training_in_a_folder_in_use_ends_with_one_message(start: Start, tmp_path: Path, whole: Path) -> None:
    arguments = "optimization=joint", "hydra.run.dir=run", "resume=auto"
    patch = STOP_IN_STEP.replace("{step}", "17").replace("{action}", "import time; time.sleep(600)")
    first = start(*arguments, patch=patch)
    try:
        wait_until((tmp_path / "run" / "checkpoints" / "last.ckpt").exists, "a checkpoint")
        for resume in ("resume=auto", "resume=null"):
            second = start(*arguments[:2], resume)
            assert second.wait() == 1
            [message] = [line for line in second.text().splitlines() if line.startswith("error: ")]
            assert f"process {first.pid} on {socket.gethostname()} trains in this folder." in message
            assert "Traceback" not in second.text()
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    finish(start(*arguments))
    assert_same_run(tmp_path / "run", whole)
