"""End of both processes, with one message, when one of them fails or hangs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

Finished = subprocess.CompletedProcess[str]

ARGUMENTS = [
    *("data=pairs", "scale=2", "data.train_list=good.txt", "data.batch_size=1", "data.patch_size=8"),
    *("data.num_workers=0", "model.features=16", "model.groups=1", "model.blocks=1", "trainer=ddp_cpu"),
    *("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "trainer.enable_progress_bar=false"),
    "hydra.run.dir=run",
]

# Runs d2csr-train; each process does what FAILURE_0 or FAILURE_1 says in the third step.
SCRIPT = """
import os, signal, time
import torch
from d2csr import launcher_watch
from d2csr.training import AlternatingTask

launcher_watch.INTERVAL, launcher_watch.GRACE = 0.1, 3.0

training_step = AlternatingTask.training_step

def failing(self, *args):
    if self.trainer.global_step == 2:
        exec(os.environ.get(f"FAILURE_{self.global_rank}", ""))
    return training_step(self, *args)

AlternatingTask.training_step = failing

from d2csr.commands.train import main

if __name__ == "__main__":
    main()
"""

WRITE_PID = "open('pid', 'w').write(str(os.getpid()))"
# Lightning's observer would find the killed process before the first one has ended, and kill that one, too.
OBSERVE_OFTEN = """
import threading
next(t for t in threading.enumerate() if t.name == "child-process-observer")._sleep_period = 0.01
"""


@pytest.fixture
def start(python: str, tmp_path: Path) -> Callable[..., Finished]:
    """Return a function that starts Python in a folder with a list of good pairs, and one with a broken one."""
    for number in range(3):
        Image.effect_noise((64, 48), 40).convert("RGB").save(tmp_path / f"hr{number}.png")
        Image.effect_noise((32, 24), 40).convert("RGB").save(tmp_path / f"lr{number}.png")
    content = bytearray((tmp_path / "hr2.png").read_bytes())
    content[len(content) // 2] ^= 0xFF  # what the check of headers and ends does not see
    (tmp_path / "hr2.png").write_bytes(content)
    (tmp_path / "good.txt").write_text("lr0.png hr0.png\nlr1.png hr1.png\n")
    (tmp_path / "broken.txt").write_text("lr0.png hr0.png\nlr2.png hr2.png\n")  # the second is the second process's
    (tmp_path / "failing.py").write_text(SCRIPT)

    def run(*arguments: str, **environment: str) -> Finished:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", **environment}
        command = [python, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150, check=False
        )

    return run


def assert_one_message(finished: Finished, message: str) -> None:
    messages = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, finished.stderr
    assert message in messages[0]
    assert "Traceback" not in finished.stderr


def runs(folder: Path) -> bool:
    """Return whether the process runs that has written its number."""
    status = Path("/proc") / (folder / "pid").read_text() / "stat"
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_broken_validation_image(start, tmp_path: Path) -> None:
    finished = start("-m", "d2csr.commands.train", *ARGUMENTS, "data.val_list=broken.txt")
    assert finished.returncode == 1
    assert_one_message(finished, "hr2.png: a broken image")
    assert "error: broken.txt:2: " in finished.stderr
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 1  # the epoch before the validation is not lost


def test_a_broken_validation_image_under_torchrun(start) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "d2csr.commands.train"]
    finished = start(*launcher, *ARGUMENTS, "data.val_list=broken.txt")
    assert finished.returncode == 1
    messages = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1  # what torchrun says of it in addition is its own
    assert "hr2.png: a broken image" in messages[0]


def test_a_broken_training_image(start) -> None:
    arguments = ["data.train_list=broken.txt", "data.val_list=good.txt"]
    finished = start("-m", "d2csr.commands.train", *ARGUMENTS, *arguments)
    assert finished.returncode == 1
    assert_one_message(finished, "hr2.png: a broken image")
    assert "error: broken.txt:2: " in finished.stderr


def test_a_missing_list(start) -> None:
    finished = start("-m", "d2csr.commands.train", *ARGUMENTS, "data.val_list=lost.txt")
    assert finished.returncode == 1
    assert_one_message(finished, "lost.txt: no such list")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("torch.empty(2**50)", "the memory of cpu is not enough"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "another process ended without an error message; it was killed"),
    ],
)
def test_a_failure_of_one_process(start, tmp_path: Path, failure: str, message: str) -> None:
    finished = start("failing.py", *ARGUMENTS, FAILURE_1=failure)
    assert finished.returncode == 1
    assert_one_message(finished, message)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("waits", ["time.sleep(600)", "torch.distributed.barrier()"])
def test_an_error_of_the_first_process_ends_one_that_waits(start, tmp_path: Path, waits: str) -> None:
    error = "while not os.path.exists('pid'): time.sleep(0.1)\nopen('failed', 'w').close(); torch.empty(2**50)"
    finished = start("failing.py", *ARGUMENTS, FAILURE_0=error, FAILURE_1=f"{WRITE_PID}; {waits}")
    after = time.time() - (tmp_path / "failed").stat().st_mtime  # the output ends with the last process
    assert finished.returncode == 1
    assert_one_message(finished, "the memory of cpu is not enough")
    assert not runs(tmp_path)
    assert after < 30
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_process_that_hangs_ends_the_other_after_the_time_out(start, tmp_path: Path) -> None:
    """As a frozen machine does; the stopped process is ended, too."""
    hang = f"{WRITE_PID}; os.kill(os.getpid(), signal.SIGSTOP)"
    finished = start("failing.py", *ARGUMENTS, "trainer.rank_timeout=0.3", FAILURE_0=OBSERVE_OFTEN, FAILURE_1=hang)
    assert finished.returncode == 1
    assert_one_message(finished, "another process has not answered for 0.3 minutes")
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert not runs(tmp_path)
