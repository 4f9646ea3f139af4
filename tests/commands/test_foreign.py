"""Tasks and data modules of other packages: docs/extending.md shows the same classes and commands."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch

import d2csr

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"

SHORT = [
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=1"),
    *("trainer.enable_progress_bar=false", "hydra.run.dir=run"),
]
TINY = ["scale=2", "optimization=joint", "model.features=16", "model.groups=1", "model.blocks=1"]

INCOMPLETE = """
import pytorch_lightning as pl
from torch import nn


class Network(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 3)


class Task(pl.LightningModule):
    def training_step(self, batch, batch_idx):
        return None


class Data(pl.LightningDataModule):
    def val_dataloader(self):
        return []
"""


@pytest.fixture
def documented(tmp_path: Path) -> None:
    """Write the modules ``my_task`` and ``my_data`` as the page shows them."""
    page = DOCS.read_text(encoding="utf-8")
    for name in ("my_task", "my_data"):
        code = re.search(rf"`{name}\.py`[^`]*```python\n(.*?)```", page, re.DOTALL)
        assert code, name
        (tmp_path / f"{name}.py").write_text(code[1])


def column(name: str) -> list[float]:
    with Path("run/csv/metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
def test_a_task_of_ones_own_trains_on_the_pairs_and_resumes(call, documented) -> None:
    task = ["plugins=[my_task]", "model._target_=my_task.Plain", "+model.features=8", "+model.scale=2"]
    demo = ["+experiment=demo", "data.patch_size=8", "data.patches_per_image=4", "trainer.gradient_clip_val=1"]
    finished = call("train", *demo, *SHORT, *task)
    assert finished.returncode == 0, finished.stderr
    assert "Its checkpoint: " in finished.stdout
    assert len(column("train/loss")) == 4
    assert len(column("val/psnr")) == 2
    assert Path("run/checkpoints/best.ckpt").is_file()
    resumed = call("train", *demo, *SHORT, *task, "resume=run", "trainer.max_epochs=3")
    assert resumed.returncode == 0, resumed.stderr
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    whole = call("train", *demo, *SHORT, *task, "trainer.max_epochs=3", "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    states = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("run", "whole")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_a_data_module_of_ones_own_trains_the_network(call, documented) -> None:
    finished = call("train", *TINY, *SHORT, "plugins=[my_data]", "data._target_=my_data.Noise", "data.batch_size=2")
    assert finished.returncode == 0, finished.stderr
    assert len(column("train/reconstruction")) == 8
    assert len(column("val/psnr")) == 2
    assert d2csr.load_model("run").scale == 2
    refused = call("eval", "ckpt=run")
    assert "does not say which pairs to test on; add data.test_list=LIST" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model._target_=mine.Network"],
            "model._target_: mine.Network is no LightningModule. It lacks training_step, c",
        ),
        (["model._target_=mine.Task"], "model._target_: mine.Task is incomplete. It lacks configure_optimizers."),
        (["data._target_=mine.Data"], "data._target_: mine.Data is incomplete. It lacks train_dataloader."),
        (["data._target_=mine.Network"], "data._target_: mine.Network is no LightningDataModule. It lacks train_datal"),
        (["+model.network._target_=mine.Network"], "model.network._target_: the network is built"),
        (["model._target_=mine.Task", "+model.depth=3"], "model.depth: mine.Task has no such argument; it has none."),
        (["data._target_=mine.Data", "data.patch_size=8"], "data.patch_size: mine.Data has no such argument; it has n"),
    ],
)
def test_what_a_class_lacks_is_named_at_the_start(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "mine.py").write_text(INCOMPLETE)
    finished = call("train", "data=demo", *TINY[:2], "plugins=[mine]", *SHORT, *arguments)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_fit_is_named(call, documented) -> None:
    data = ["plugins=[my_data]", "data._target_=my_data.Noise", "data.scale=4"]
    finished = call("train", *TINY, *SHORT, *data)
    assert finished.returncode == 1
    assert (
        "error: A batch is a dict with lr and hr, or a tuple (lr, hr); at scale 2, lr of [4, 3, 16, 16]"
        in finished.stderr
    )


def test_weights_of_this_package_are_refused_for_another_task(call, documented, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").touch()
    finished = call(
        "train", "data=demo", "plugins=[my_task]", "model._target_=my_task.Plain", "init_from=x.ckpt", *SHORT
    )
    assert "error: init_from: my_task.Plain is not a task of d2csr" in finished.stderr
