"""What needs no import is checked before torch is imported, and a failed start leaves no folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from d2csr.commands.early_checks import OPTIMIZATIONS
from d2csr.training.build import OPTIMIZATIONS as TASKS

MISTAKES = [
    ("train", ["optimization=jont"], "optimization: must be one of alternating, joint, sequential, got 'jont'."),
    ("train", ["scale=5"], "scale: must be one of 2, 3, 4, 8, got 5."),
    ("train", ["resume=nowhere"], "nowhere: no such checkpoint."),
    ("train", ["init_from=nowhere"], "nowhere: no such checkpoint."),
    ("train", ["resume=a", "init_from=b"], "resume=… and init_from=… exclude each other"),
    ("train", [], "lists/realsr_x4_train.txt: no such list. Write one with d2csr-lists"),
    ("train", ["data.train_list=mine.txt"], "mine.txt: no such list."),
    ("train", ["data.root=nowhere"], "nowhere: no such folder. Name the folder of the data set 'realsr'."),
    ("train", ["model.featurs=3"], "model.featurs: no such key."),
    ("eval", [], "ckpt=… is missing; see --help."),
    ("eval", ["ckpt=nowhere"], "nowhere: no such checkpoint."),
    ("eval", ["ckpt=official.pkl", "data.test_list=mine.txt"], "mine.txt: no such list."),
    ("convert", ["source=nowhere", "output=x.ckpt"], "nowhere: no such checkpoint."),
    ("upscale", ["ckpt=nowhere", "input=a", "output=b"], "nowhere: no such checkpoint."),
]


def test_the_modes_are_those_of_training() -> None:
    assert tuple(TASKS) == OPTIMIZATIONS


@pytest.mark.parametrize(("command", "arguments", "message"), MISTAKES)
def test_a_mistake_is_one_message_and_leaves_no_folder(
    call, tmp_path: Path, command: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "official.pkl").touch()
    finished = call(command, *arguments)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"error: {message}")
    assert finished.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["official.pkl"]


def test_a_mistake_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    mistakes = [MISTAKES[number] for number in (0, 2, 6, 8, 10)]
    code = (
        "import importlib, sys\n"
        f"for command, arguments, _ in {mistakes!r}:\n"
        "    sys.argv[1:] = arguments\n"
        "    try: importlib.import_module(f'd2csr.commands.{command}').main()\n"
        "    except SystemExit as exit_: assert exit_.code == 1\n"
        "    assert 'torch' not in sys.modules, (command, arguments)\n"
    )
    (tmp_path / "official.pkl").touch()
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    for _, _, message in mistakes:
        assert message in finished.stderr


@pytest.mark.parametrize("run_dir", ["a/b/run", "kept/run", "full"])
def test_a_late_failure_leaves_only_the_folders_that_were_there(call, tmp_path: Path, run_dir: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    finished = call("train", "+experiment=demo", "model.network.features=0", f"hydra.run.dir={run_dir}")
    assert "error: model.network.features: must be a whole number from 1 up, got 0." in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "kept"]
    assert not list((tmp_path / "kept").iterdir())
    assert (tmp_path / "full" / "notes.txt").is_file()


def test_a_failure_after_the_first_result_keeps_the_folder(call, tmp_path: Path) -> None:
    (tmp_path / "my_callback.py").write_text(
        "from pathlib import Path\n"
        "from d2csr.errors import DataError\n"
        "from pytorch_lightning.callbacks import Callback\n\n"
        "class Fails(Callback):\n"
        "    def __init__(self, folder):\n"
        "        Path(folder, 'result.txt').touch()\n"
        "        raise DataError('too late')\n"
    )
    arguments = ["plugins=[my_callback]", "+callbacks.x._target_=my_callback.Fails", "+callbacks.x.folder=run"]
    finished = call("train", "+experiment=demo", "hydra.run.dir=run", *arguments)
    assert "too late" in finished.stderr
    assert (tmp_path / "run" / "result.txt").is_file()
    assert (tmp_path / "run" / ".hydra").is_dir()
