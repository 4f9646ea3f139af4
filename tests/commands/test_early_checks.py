"""Checks before the import of torch, and no run folder after a failed start."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2csr.checks import OPTIMIZATIONS, PROTOCOLS
from d2csr.commands import base
from d2csr.metrics.protocols import PROTOCOLS as BY_NAME
from d2csr.training.build import TASKS
from helpers import mostly_slow

MISTAKES = [
    ("train", ["optimization=jont"], "optimization: must be one of alternating, joint, sequential, got 'jont'."),
    ("train", ["scale=5"], "scale: must be one of 2, 3, 4, 8, got 5."),
    ("train", ["resume=nowhere"], "nowhere: no such checkpoint."),
    ("train", ["init_from=nowhere"], "nowhere: no such checkpoint."),
    ("train", ["resume=a", "init_from=b"], "resume=… and init_from=… exclude each other"),
    ("train", [], "lists/realsr_x4_train.txt: no such list. Write one with d2csr-lists"),
    (
        *("train", ["data=photographs", "scale=2"]),
        "photographs/photographs_x2_train.txt: no such list. Write it and its pairs, in the source tree of d2csr: "
        "python benchmarks/photographs.py photographs --scale 2",
    ),
    ("train", ["data=degraded"], "data.hr=… is missing; see --help."),
    ("train", ["data=degraded", "data.hr=nowhere"], "nowhere: no such folder. Name the folder of HR images by data.hr"),
    ("train", ["data.train_list=mine.txt"], "mine.txt: no such list."),
    ("train", ["data.root=nowhere"], "nowhere: no such folder. Name the folder of the data set 'realsr'."),
    ("train", ["model.featurs=3"], "model.featurs: no such key."),
    ("train", ["model.features=-3"], "model.network.features: must be a whole number from 1 up, got -3."),
    ("train", ["data.batch_size=four"], "data.batch_size: must be a whole number from 1 up, got 'four'."),
    ("train", ["model.network.scale=2"], "model.network.scale: is 2, but scale is 4. Set scale=2, which sets both."),
    ("train", ["model.scale=2"], "model.network.scale: is 2, but scale is 4. Set scale=2, which sets both."),
    ("train", ["data.scale=2"], "data.scale: is 2, but scale is 4. Set scale=2, which sets both."),
    ("train", ["trainer.optimization=joint"], "trainer.optimization: is joint, but optimization is alternating."),
    ("train", ["model.optimization=joint"], "model.optimization: is joint, but optimization is alternating."),
    ("train", ["seed=-1"], "seed: must be a whole number from 0 to 4294967295, got -1."),
    ("train", ["model.protocol=Y"], "model.protocol: must be one of d2csr, cdc, y, realsr, rgb, got 'Y'."),
    ("train", ["+trainer.callbacks=[]"], "trainer.callbacks: set +callbacks.NAME._target_=CLASS."),
    ("train", ["+experiment=demo", "~data"], "data: has no _target_. Choose an option, data=…, instead of ~data or "),
    ("train", ["match=flop"], "match: must be one of parameters, flops, got 'flop'."),
    ("train", ["match_by=size"], "match_by: must be one of width, depth, got 'size'."),
    ("train", ["match_to.path=1"], "match_to.path: no such key. Did you mean match_to.paths"),
    ("train", ["match_to=single"], "match_to: has keys of its own: match_to.features=…, match_to.body=…"),
    ("eval", ["ckpt=official.pkl", "+trainer.callbacks=[]"], "trainer.callbacks: only d2csr-train takes callbacks."),
    ("eval", ["ckpt=official.pkl", "+trainer.logger=csv"], "trainer.logger: only d2csr-train has loggers."),
    ("eval", ["ckpt=official.pkl", "save=[sr,panel]"], "save: must be of sr, panels, got sr, panel."),
    ("eval", ["ckpt=official.pkl", "inference.mode=tile"], "inference.mode: must be one of auto, strips, tiles, got"),
    ("eval", ["protocols=[y,psnr]"], "protocols: must be of d2csr, cdc, y, realsr, rgb, got y, psnr."),
    ("eval", ["sr=nowhere", "data.test_list=official.pkl"], "sr: nowhere: no such folder or list."),
    ("eval", [], "ckpt=… is missing, or sr=FOLDER to score the images of another method; see --help."),
    ("eval", ["ckpt=nowhere"], "nowhere: no such checkpoint."),
    ("eval", ["ckpt=official.pkl", "data.test_list=mine.txt"], "mine.txt: no such list."),
    ("eval", ["ckpt=official.pkl", "data.root=missing"], "missing: no such folder."),
    ("convert", ["source=nowhere", "output=x.ckpt"], "nowhere: no such checkpoint."),
    ("upscale", ["ckpt=nowhere", "input=a", "output=b"], "nowhere: no such checkpoint."),
    (
        *("upscale", ["ckpt=official.pkl", "input=a", "output=b", "+x=1"]),
        "x: no such key. The keys are ckpt, input, output, overwrite, save, suffix, format, quality, png_compression, "
        "max_pixels, device, plugins, trainer, hydra, inference, shell; see --help.",
    ),
    # values of another kind than the key has
    ("train", ["data=1"], "data=1: no such option. Choose one of d2crealsr, degraded, demo, drealsr, pairs,"),
    ("train", ["logger=null"], "logger=null: no such option. Choose one of csv, tensorboard, wandb."),
    ("train", ["+experiment=[1]"], "experiment=[1]: no such option. Choose one of d2crealsr_x8, demo,"),
    ("train", ["scale=null"], "scale: needs a value; its default is 4."),
    ("train", ["match_to=null"], "match_to: has keys of its own: match_to.features=…, match_to.body=…"),
    ("train", ["checkpoint=true"], "checkpoint: has keys of its own: checkpoint.every_n_steps=…"),
    ("train", ["init_strict=abc"], "init_strict: must be true or false, got 'abc'."),
    ("train", ["~seed"], "seed: is missing; remove ~seed."),
    ("train", ["data=degraded", "data.hr=.", "data.name=[]"], "data.name: must be a text, got []."),
    ("train", ["data.name=null"], "data.name: needs a value."),
    ("train", ["logger.csv.name=1", "data.test_list=official.pkl"], "logger.csv.name: must be a text, got 1."),
    ("train", ["data.root=1"], "1: no such folder. Name the folder of the data set 'realsr'."),
    ("convert", ["source=null", "output=x.ckpt"], "source=… is missing; see --help."),
    ("export", ["ckpt=official.pkl", "output=''"], "output=… is missing; see --help."),
]

TINY = [
    *(
        "+experiment=demo",
        "trainer=cpu",
        "model.features=16",
        "data.patch_size=8",
        "data.patches_per_image=1",
        "data.batch_size=4",
    ),
    *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "callbacks=none"),
]


def test_the_modes_are_those_of_training() -> None:
    assert tuple(TASKS) == OPTIMIZATIONS


def test_the_protocols_are_those_of_the_metrics() -> None:
    assert tuple(BY_NAME) == PROTOCOLS


@pytest.mark.parametrize(("command", "arguments", "message"), mostly_slow(MISTAKES))
def test_a_mistake_is_one_message_and_leaves_no_folder(
    call, tmp_path: Path, command: str, arguments: list[str], message: str
) -> None:
    (tmp_path / "official.pkl").touch()
    finished = call(command, *arguments)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"error: {message}")
    assert finished.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["official.pkl"]


@pytest.mark.slow
def test_a_mistake_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import importlib, sys\n"
        f"for command, arguments, _ in {MISTAKES!r}:\n"
        "    sys.argv[1:] = arguments\n"
        "    try: importlib.import_module(f'd2csr.commands.{command}').main()\n"
        "    except SystemExit as exit_: assert exit_.code == 1\n"
        "    assert 'torch' not in sys.modules, (command, arguments)\n"
    )
    (tmp_path / "official.pkl").touch()
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    for _, _, message in MISTAKES:
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


@pytest.mark.parametrize("logger", ["csv", pytest.param("tensorboard", marks=pytest.mark.slow)])
def test_a_failed_check_of_the_data_leaves_no_folder(call, tmp_path: Path, logger: str) -> None:
    finished = call("train", *TINY, "data.patch_size=151", f"logger={logger}", "hydra.run.dir=runs/new")
    assert "smaller than the LR patch of 151, 302 in HR; data.patch_size=120 fits all" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["demo_pairs"]


@pytest.mark.slow
def test_a_failed_check_of_the_data_leaves_an_earlier_run_as_it_is(call, tmp_path: Path) -> None:
    assert call("train", *TINY, "hydra.run.dir=run").returncode == 0
    assert call("train", *TINY, "hydra.run.dir=run", "data.patch_size=151").returncode == 1
    assert sorted(path.name for path in tmp_path.glob("run/checkpoints*")) == ["checkpoints"]
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert call("train", *TINY, "hydra.run.dir=run").returncode == 0
    assert sorted(path.name for path in tmp_path.glob("run/checkpoints*")) == ["checkpoints", "checkpoints.1"]


@pytest.mark.slow
def test_a_failure_of_the_training_keeps_the_folder(call, tmp_path: Path) -> None:
    (tmp_path / "my_loss.py").write_text(
        "import torch\n\n"
        "class Nan(torch.nn.Module):\n"
        "    def forward(self, images, hr):\n"
        "        return (images - hr).mean() * float('nan')\n"
    )
    loss = ["plugins=[my_loss]", "model.losses.fusion._target_=my_loss.Nan"]
    finished = call("train", *TINY, *loss, "~logger.csv", "hydra.run.dir=run")
    assert finished.returncode == 1
    assert "the loss is not finite" in finished.stderr
    assert (tmp_path / "run" / ".hydra").is_dir()
    assert (tmp_path / "run" / "d2csr-train.log").is_file()


def test_a_full_disk_at_the_start_is_one_message(call, tmp_path: Path, monkeypatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(base.tempfile, "TemporaryFile", full)
    finished = call("train", "+experiment=demo", "hydra.run.dir=run")
    assert finished.returncode == 1
    assert finished.stderr.startswith(
        "error: run: cannot be written to (No space left on device). Name another by hydra.run.dir="
    )
    assert not list(tmp_path.iterdir())
