"""The help pages name what a user may set, and every command on them can be tried."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = {
    "train": ["+experiment=", "scale=", "optimization=", "data.train_list", "data.root", "resume=", "init_from="],
    "eval": ["ckpt=", "data.test_list", "protocol=", "save="],
    "upscale": ["ckpt=", "input=", "output=", "overwrite="],
    "lists": ["dataset=", "root=", "scale=", "output="],
    "convert": ["source=", "output="],
}


@pytest.mark.parametrize("command", KEYS)
def test_the_help_page_shows_calls_and_keys(command: str, run) -> None:
    finished = run(command, "--help")
    assert finished.returncode == 0
    assert re.search(rf"^  d2csr-{command} \S+=\S+", finished.stdout, re.MULTILINE)
    for key in KEYS[command]:
        assert key in finished.stdout
    assert "Powered by Hydra" not in finished.stdout


def test_the_help_page_names_every_experiment(run) -> None:
    page = run("train", "--help").stdout
    for experiment in ("realsr_x2", "realsr_x3", "realsr_x4", "drealsr_x4", "d2crealsr_x8", "demo"):
        assert experiment in page


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from d2csr.commands.train import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "d2csr-train" in finished.stdout
