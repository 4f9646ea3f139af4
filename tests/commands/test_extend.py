"""Tasks of a user who extends the package without a change to it: docs/extending.md shows the same commands."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import d2csr

TINY = [
    "+experiment=demo",
    "trainer=cpu",
    "model.network.features=16",
    "model.network.fusion_features=8",
    "data.patch_size=8",
    "data.batch_size=2",
    "data.patches_per_image=1",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.panels.images=0",
    "hydra.run.dir=run",
]

BODY = """
from torch import nn

from d2csr.models import register_body


@register_body("mine")
class Mine(nn.Sequential):
    def __init__(self, features: int, depth: int = 1) -> None:
        super().__init__(*(nn.Conv2d(features, features, 5, padding=2) for _ in range(depth)))
"""

LOSS = """
import torch


class Mine(torch.nn.Module):
    def __init__(self, gain: float = 2.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, predictions, hr):
        return self.gain * predictions.var(dim=1).mean()
"""


def rows(path: Path, column: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


@pytest.mark.slow
def test_a_body_of_ones_own_is_trained_resumed_evaluated_and_loaded(run, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_bodies.py").write_text(BODY)
    body = ["plugins=[my_bodies]", "model.network.body.name=mine", "model.network.body.depth=2"]
    trained = run("train", *TINY, *body)
    assert trained.returncode == 0, trained.stderr
    resumed = run("train", *TINY, *body, "resume=run", "trainer.max_epochs=3")
    assert resumed.returncode == 0, resumed.stderr
    assert "Trained 6 steps" in resumed.stdout
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["d2csr"]["network"]["body"] == {"name": "mine", "depth": 2}
    without = run("train", *TINY, *body[1:], "hydra.run.dir=other")
    assert without.returncode == 1
    assert "model.network.body.name: must be one of rcab" in without.stderr
    assert "plugins=[my_module]" in without.stderr


@pytest.mark.slow
def test_another_body_drops_the_settings_of_the_shipped_one(call, tmp_path: Path, monkeypatch) -> None:
    """The demo sets groups and blocks of its body; the user has not asked for them."""
    (tmp_path / "more_bodies.py").write_text(BODY.replace('"mine"', '"more"'))
    finished = call("train", *TINY, "plugins=more_bodies", "model.network.body.name=more")
    assert finished.returncode == 0, finished.stderr
    assert "model.network.body.groups, model.network.body.blocks" in finished.stdout
    refused = call("train", *TINY, "plugins=more_bodies", "model.network.body.name=more", "model.blocks=2")
    assert refused.returncode == 1
    assert "model.network.body.blocks: the body 'more' has no such argument; it has name, depth" in refused.stderr


LOSSES = [
    "model.losses.reconstruction._target_=torch.nn.L1Loss",
    "model.losses.fusion._target_=d2csr.losses.Charbonnier",
]

EXPERIMENT = """
# @package _global_
defaults:
  - demo
  - _self_
model:
  losses:
    reconstruction:
      _target_: torch.nn.L1Loss
    fusion:
      _target_: d2csr.losses.Charbonnier
"""


@pytest.mark.slow
def test_other_losses_by_overrides_and_by_an_experiment_file_are_the_same(call, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "robust.yaml").write_text(EXPERIMENT.lstrip())
    own = ["--config-dir=my_conf", "+experiment=robust", *TINY[1:-1]]
    for arguments in ([*TINY[:-1], *LOSSES], own, TINY[:-1]):
        finished = call("train", *arguments, f"hydra.run.dir=run{len(list(tmp_path.glob('run*')))}")
        assert finished.returncode == 0, finished.stderr
    first, second, shipped = (
        rows(tmp_path / f"run{n}" / "csv" / "metrics.csv", "train/reconstruction") for n in range(3)
    )
    assert first == second
    assert first != shipped


@pytest.mark.slow
def test_a_loss_of_ones_own_replaces_the_divergence_loss(call, tmp_path: Path) -> None:
    (tmp_path / "my_losses.py").write_text(LOSS)
    arguments = ["plugins=[my_losses]", "model.losses.divergence._target_=my_losses.Mine"]
    finished = call("train", *TINY, *arguments, "model.divergence.weight=1", "+model.losses.divergence.gain=5")
    assert finished.returncode == 0, finished.stderr
    assert "model.losses.divergence.margin_same" in finished.stdout  # among the dropped defaults
    assert max(rows(tmp_path / "run" / "csv" / "metrics.csv", "train/divergence")) > 0


ADAMW = ["model.optimizer._target_=torch.optim.AdamW", "model/scheduler=cosine", "model.scheduler.warmup=1"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["alternating", "joint"])
def test_adamw_with_cosine_and_warm_up(call, mode: str, tmp_path: Path) -> None:
    finished = call("train", *TINY, *ADAMW, "trainer.max_epochs=3", f"optimization={mode}")
    assert finished.returncode == 0, finished.stderr
    rates = rows(tmp_path / "run" / "csv" / "metrics.csv", "train/lr")
    assert rates[::2] == pytest.approx([5e-4, 1e-3, 5e-4])  # the demo's rate is 1e-3; two batches an epoch


STOP = [
    "+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping",
    "+callbacks.stop.monitor=val/psnr",
    "+callbacks.stop.mode=max",
    "+callbacks.lr._target_=pytorch_lightning.callbacks.LearningRateMonitor",
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["alternating", "joint", "sequential"])
def test_early_stopping_and_a_learning_rate_monitor(call, mode: str, tmp_path: Path) -> None:
    never_better = ["+callbacks.stop.patience=1", "+callbacks.stop.min_delta=99", "trainer.max_epochs=9"]
    finished = call("train", *TINY, *STOP, *never_better, f"optimization={mode}")
    assert finished.returncode == 0, finished.stderr
    assert "Trained 4 steps" in finished.stdout  # two epochs of two
    names = (tmp_path / "run" / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert "lr-Adam" in names


@pytest.mark.slow
def test_callbacks_can_be_removed(call, tmp_path: Path) -> None:
    finished = call("train", *[a for a in TINY if "panels" not in a], "~callbacks.panels", "~callbacks.progress")
    assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / "run" / "panels").exists()
    none = [argument for argument in TINY if "panels" not in argument and "run.dir" not in argument]
    finished = call("train", *none, "callbacks=none", "hydra.run.dir=none")
    assert finished.returncode == 0, finished.stderr
    assert [path.name for path in (tmp_path / "none" / "checkpoints").glob("*est.ckpt")] == []
    assert (tmp_path / "none" / "checkpoints" / "last.ckpt").is_file()


def test_a_former_key_in_a_file_is_named_with_its_new_name(call, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "old.yaml").write_text("# @package _global_\nmodel:\n  features: 16\n")
    finished = call("train", "--config-dir=my_conf", "+experiment=old", "hydra.run.dir=run")
    assert finished.returncode == 1
    assert "error: model.features: this key is now model.network.features" in finished.stderr


HOSTILE = {"_target_": "os.system", "command": "touch it_ran", "_args_": ["touch it_ran"], "_partial_": False}


@pytest.mark.slow
def test_a_hostile_checkpoint_and_run_folder_run_no_code(call, tmp_path: Path) -> None:
    assert call("train", *TINY).returncode == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    for part in ("model", "callbacks", "data", "trainer"):
        content["settings"][part] = {**content["settings"][part], **HOSTILE, "evil": HOSTILE}
    content["settings"]["plugins"] = ["my_evil"]
    content["hyper_parameters"] |= {
        "losses": HOSTILE,
        "optimizer": HOSTILE,
        "_target_": "os.system",
        "plugins": ["my_evil"],
    }
    content["d2csr"]["plugins"] = ["my_evil"]
    for name in ("last.ckpt", "best.ckpt"):
        torch.save(content, last.with_name(name))
    (tmp_path / "my_evil.py").write_text("open('it_ran', 'w').close()\n")
    evil = (
        "plugins: [my_evil]\nmodel: {_target_: os.system, command: touch it_ran}\nhydra: {searchpath: [file://run]}\n"
    )
    for name in ("config.yaml", "hydra.yaml"):
        (tmp_path / "run" / ".hydra" / name).write_text(evil)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("- plugins=[my_evil]\n- model._target_=os.system\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "lr.png")

    resumed = call("train", *TINY, "resume=run", "trainer.max_epochs=3")
    assert resumed.returncode == 0, resumed.stderr
    torch.save(content, last)
    call("eval", "ckpt=run", "trainer=cpu", "data.num_workers=0", "hydra.run.dir=eval")
    upscaled = call("upscale", "ckpt=run/checkpoints/last.ckpt", "input=lr.png", "output=out", "trainer=cpu")
    assert upscaled.returncode == 0, upscaled.stderr
    d2csr.load_model(last)
    assert not list(tmp_path.rglob("it_ran"))
    for body in ({"name": HOSTILE}, {**HOSTILE, "name": "rcab"}, HOSTILE):
        content["d2csr"]["network"]["body"] = body
        torch.save(content, last)
        refused = call("upscale", "ckpt=run/checkpoints/last.ckpt", "input=lr.png", "output=out2", "trainer=cpu")
        assert refused.returncode == 1, refused.stdout
        assert "Traceback" not in refused.stderr
    assert not list(tmp_path.rglob("it_ran"))
    assert "my_evil" not in os.sys.modules
