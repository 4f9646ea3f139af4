"""End of a rank that waits for ever, after the end of the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from d2csr import launcher_watch

# Runs d2csr-train; in the third step the rank VICTIM is killed, and the other one sleeps: it notices nothing, as in a
# collective of NCCL, which does not return.
SCRIPT = """
import os, signal, time
from d2csr import launcher_watch
from d2csr.training import AlternatingTask

launcher_watch.INTERVAL, launcher_watch.GRACE = 0.1, 0.5
training_step = AlternatingTask.training_step

def failing(self, *args):
    if self.trainer.global_step == 2:
        open(f"{self.global_rank}.txt", "w").write(str(os.getpid()))
        if str(self.global_rank) != os.environ["VICTIM"]:
            while True:
                time.sleep(60)
        while not os.path.exists(f"{1 - self.global_rank}.txt"):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(self, *args)

AlternatingTask.training_step = failing

from d2csr.commands.train import main

if __name__ == "__main__":
    main()
"""
ARGUMENTS = [
    *("data=pairs", "scale=2", "data.train_list=pairs.txt", "data.batch_size=1", "data.patch_size=8"),
    *("data.num_workers=0", "model.features=16", "model.groups=1", "model.blocks=1", "trainer=ddp_cpu"),
    *("trainer.max_epochs=9", "trainer.enable_progress_bar=false", "hydra.run.dir=run"),
]


def runs(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_waits_for_ever_ends_after_the_other_was_killed(victim, python: str, tmp_path: Path) -> None:
    for number in range(2):
        Image.effect_noise((64, 48), 40).convert("RGB").save(tmp_path / f"hr{number}.png")
        Image.effect_noise((32, 24), 40).convert("RGB").save(tmp_path / f"lr{number}.png")
    (tmp_path / "pairs.txt").write_text("lr0.png hr0.png\nlr1.png hr1.png\n")
    (tmp_path / "failing.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VICTIM": str(victim)}
    with (tmp_path / "log.txt").open("w") as log:
        command = [python, "failing.py", *ARGUMENTS]
        first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        assert first.wait(timeout=120) == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    second, end = int((tmp_path / "1.txt").read_text()), time.monotonic() + 20
    try:
        while runs(second) and time.monotonic() < end:
            time.sleep(0.1)
        assert not runs(second)
    finally:
        if runs(second):
            os.kill(second, signal.SIGKILL)


def watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "launcher-watch"]


@pytest.mark.parametrize(
    ("variables", "watched"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "0"}, 0),
        ({"LOCAL_RANK": "1"}, 0),  # started by hand
        ({"LOCAL_RANK": "1", launcher_watch.LAUNCHER: "here"}, 1),
        ({"LOCAL_RANK": "1", launcher_watch.LAUNCHER: "here", "TORCHELASTIC_RUN_ID": "none"}, 0),
        ({"LOCAL_RANK": "1", launcher_watch.LAUNCHER: "here", "SLURM_PROCID": "1"}, 0),
    ],
)
def test_only_ranks_that_lightning_started_watch(variables, watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", launcher_watch.LAUNCHER):
        monkeypatch.setenv(name, "")  # restored afterwards, also if the function sets it
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(os.getppid()) if value == "here" else value)
    ended, waited = [], threading.Event()
    monkeypatch.setattr(launcher_watch, "_watch", lambda launcher: (ended.append(launcher), waited.wait(60)))
    launcher_watch.end_with_launcher()
    assert len(watches()) == watched
    waited.set()
    for thread in watches():
        thread.join()
    assert ended == [os.getppid()] * watched
    marked = not watched and variables.get("LOCAL_RANK", "0") == "0"
    assert (os.environ.get(launcher_watch.LAUNCHER) == str(os.getpid())) == marked


def test_a_launcher_that_ended_before_the_watch_began_is_noticed() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert launcher_watch._has_ended(process.pid, is_parent=False)
    assert launcher_watch._has_ended(process.pid, is_parent=True)
    assert not launcher_watch._has_ended(os.getpid(), is_parent=False)
    assert not launcher_watch._has_ended(os.getppid(), is_parent=True)
