"""Tasks of a user who extends the package without a change to it: docs/extending.md shows the same commands."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
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
    "data.num_workers=0",
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


@pytest.fixture(autouse=True)
def as_a_console_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the working folder off ``sys.path``, where ``python -m`` puts it and a console script does not."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")


def done(finished) -> str:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def message(finished) -> str:
    """Return the message of a command that a user's mistake has ended."""
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    (line,) = finished.stderr.splitlines()
    return line


def printed(python: str, folder: Path, code: str) -> dict:
    """Run Python code in a folder and return the JSON that it prints."""
    command = [python, "-c", code]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


BODY_SETTINGS = ["model.network.body.name=mine", "model.network.body.depth=2"]

UPSCALED = """
import json
import numpy as np, torch
from PIL import Image
import d2csr
from d2csr.inference.runner import Inference

model = d2csr.load_model("run", plugins=["my_bodies"])
exported = d2csr.load_model("weights.ckpt")
image = np.array(Image.open("lr.png"))
lr = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
with torch.no_grad():
    (plain,) = model(lr)
sr = np.array(Image.open("results/lr.png")).astype(float)
plan = Inference(memory="150MB").plan(model, lr)
print(json.dumps({
    "body": model.settings["body"],
    "rows": plan.length,
    "tile": plan.tile,
    "difference": abs(sr - plain.permute(1, 2, 0).clamp(0, 1).numpy() * 255).max(),
    "exported": all(torch.equal(a, b) for a, b in zip(model.parameters(), exported.parameters())),
}))
"""


@pytest.mark.slow
def test_a_body_of_ones_own_is_trained_resumed_evaluated_and_loaded(run, python: str, tmp_path: Path) -> None:
    (tmp_path / "my_bodies.py").write_text(BODY)
    plugins = "plugins=[my_bodies]"
    done(run("train", *TINY, plugins, *BODY_SETTINGS))
    assert "Trained 6 steps" in done(run("train", *TINY, plugins, *BODY_SETTINGS, "resume=run", "trainer.max_epochs=3"))
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["d2csr"]["network"]["body"] == {"name": "mine", "depth": 2}

    table = done(run("eval", "ckpt=run", plugins, "trainer=cpu", "data.num_workers=0", "hydra.run.dir=eval"))
    assert "×2, 3 images, protocol d2csr" in table

    Image.effect_noise((200, 160), 60).convert("RGB").save(tmp_path / "lr.png")
    upscale = ["ckpt=run", "input=lr.png", "output=results", "trainer=cpu", "inference.memory=150MB"]
    upscaled = run("upscale", *upscale, plugins)
    assert "approximate" not in done(upscaled) + upscaled.stderr
    done(run("convert", "source=run", "output=weights.ckpt", plugins))
    report = printed(python, tmp_path, UPSCALED)
    assert report["body"] == {"name": "mine", "depth": 2}
    assert report["rows"] < 160  # several strips
    assert report["tile"] is None
    assert report["difference"] <= 0.51  # of 255: rounding to 8 bits
    assert report["exported"]


@pytest.mark.slow
def test_a_body_without_its_plugin_is_one_message(run, tmp_path: Path) -> None:
    (tmp_path / "my_bodies.py").write_text(BODY)
    done(run("train", *TINY, "plugins=my_bodies", *BODY_SETTINGS, "trainer.max_epochs=1"))
    Image.new("RGB", (8, 8)).save(tmp_path / "lr.png")
    refused = [
        run("train", *TINY, *BODY_SETTINGS, "hydra.run.dir=other"),
        run("eval", "ckpt=run", "trainer=cpu", "hydra.run.dir=eval"),
        run("upscale", "ckpt=run", "input=lr.png", "output=results", "trainer=cpu"),
        run("convert", "source=run", "output=weights.ckpt"),
    ]
    for finished in refused:
        text = message(finished)
        assert "body.name: must be one of edsr, imdn, nafnet, rcab, rrdb, swin, got 'mine'" in text
        assert "plugins=[my_module]" in text
    assert message(refused[0]).startswith("error: model.network.body.name: ")
    nowhere = message(run("train", *TINY, "plugins=[nowhere]", *BODY_SETTINGS))
    assert (
        nowhere == f"error: plugins: no module 'nowhere' in {tmp_path} or on PYTHONPATH. "
        "Name a Python file there without its .py."
    )


@pytest.mark.slow
def test_a_body_of_ones_own_is_trained_by_two_processes(run, tmp_path: Path) -> None:
    """The second process of DDP starts from the command line of the first, with the plugins."""
    (tmp_path / "my_bodies.py").write_text(BODY)
    settings = ["plugins=[my_bodies]", *BODY_SETTINGS, "trainer.max_epochs=1", "data.batch_size=1"]
    single = run("train", *TINY, *settings, "data.batch_size=2", "model.divergence.weight=0")
    double = run("train", *TINY, *settings, "trainer=ddp_cpu", "hydra.run.dir=ddp", "model.divergence.weight=0")
    done(single)
    assert "Trained 2 steps" in done(double)
    assert "sync_dist" not in double.stderr
    one, two = (
        torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in ("run", "ddp")
    )
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name


def write_first_format(path: Path) -> None:
    """Rewrite a checkpoint of a run of the demo as the first version of the package wrote it."""
    content = torch.load(path, weights_only=True)
    about, settings = content["d2csr"], content["settings"]
    body = about["network"].pop("body")
    assert body.pop("name") == "rcab"
    about["format"] = 1
    about["network"] |= body
    content["hyper_parameters"] = {"network": about["network"], "optimization": "joint", "ema_decay": None}
    del content["schedulers"]  # followed from the epoch
    model = settings["model"]
    network, losses, scheduler = model.pop("network"), model.pop("losses"), model.pop("scheduler")
    network |= {key: value for key, value in network.pop("body").items() if key != "name"}
    model |= network | {"divergence_scope": losses["divergence"].pop("scope")}
    margins = ("margin_same", "margin_diff", "decay_rate")
    model["divergence"] |= {key: losses["divergence"][key] for key in margins}
    optimizer = {key: value for key, value in model["optimizer"].items() if not key.startswith("_")}
    model["optimizer"] = {**optimizer, "halve_every": scheduler["decay_every"]}
    settings["data"]["_target_"] = "d2csr.demo.datamodule.DemoDataModule"
    panels = settings.pop("callbacks")["panels"]
    settings["panels"] = {key: value for key, value in panels.items() if key != "_target_"}
    model["divergence"]["halve_every"] = model["divergence"].pop("decay_every")
    del model["divergence"]["decay_factor"], model["init"]
    del settings["plugins"], settings["trainer"]["rank_timeout"], model["scheduler_interval"]
    torch.save(content, path)


@pytest.mark.slow
def test_a_checkpoint_of_the_first_format_is_evaluated_and_resumed(run, tmp_path: Path) -> None:
    done(run("train", *TINY, "trainer.max_epochs=4", "hydra.run.dir=whole"))  # the learning rate halves after 3 epochs
    done(run("train", *TINY))
    evaluate = ["ckpt=run/checkpoints/last.ckpt", "trainer=cpu", "data.num_workers=0"]
    done(run("eval", *evaluate, "hydra.run.dir=eval"))
    for name in ("best.ckpt", "last.ckpt"):
        write_first_format(tmp_path / "run" / "checkpoints" / name)
    done(run("eval", *evaluate, "hydra.run.dir=eval1"))
    assert (tmp_path / "eval" / "metrics.csv").read_text() == (tmp_path / "eval1" / "metrics.csv").read_text()
    resumed = run("train", *TINY, "resume=run", "trainer.max_epochs=4")
    assert "Trained 8 steps" in done(resumed)
    assert "weights will differ" not in resumed.stdout + resumed.stderr
    whole, rest = (
        torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in ("whole", "run")
    )
    assert all(torch.equal(value, rest[name]) for name, value in whole.items())


LAYOUT = """
from d2csr.data.layouts import Layout, register_layout

register_layout(
    "mine",
    Layout(
        folders=(
            ("{split}", "sharp/x{scale}", "small/x{scale}"),
        ),
        names=r"(scene\\d+)_(?:tele|wide)",
        example="scene1_tele.png with scene1_wide.png",
        scales=(2, 4),
    ),
)
"""


@pytest.mark.slow
def test_a_data_set_layout_of_ones_own_by_one_module_and_one_yaml(run, tmp_path: Path) -> None:
    (tmp_path / "my_layout.py").write_text(LAYOUT)
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "mine.yaml").write_text("defaults: [pairs]\nname: mine\n")
    for split, count in (("train", 4), ("test", 2)):
        for kind, ending, size in (("sharp", "tele", (48, 32)), ("small", "wide", (24, 16))):
            folder = tmp_path / "photographs" / split / kind / "x2"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.effect_noise(size, 60).convert("RGB").save(folder / f"scene{number}_{ending}.png")
    small = [argument for argument in TINY if not argument.startswith("+")]
    small += ["scale=2", "optimization=joint", "model.network.body.groups=1", "model.network.body.blocks=1"]
    own = ["--config-dir", "my_conf", "data=mine", "data.root=photographs", "data.num_workers=0", *small]
    assert "Trained 4 steps" in done(run("train", "plugins=[my_layout]", *own))
    evaluate = ["ckpt=run", "trainer=cpu", "data.num_workers=0"]
    evaluated = done(run("eval", *evaluate, "plugins=[my_layout]", "hydra.run.dir=eval"))
    assert "×2, 2 images, protocol d2csr" in evaluated
    assert "scene0_wide.png" in evaluated
    for refused in (run("train", *own, "hydra.run.dir=other"), run("eval", *evaluate, "hydra.run.dir=eval")):
        assert "no data set 'mine': choose one of realsr, drealsr, d2crealsr, pairs" in message(refused)
        assert "plugins=[my_module]" in message(refused)
    # With lists, training and evaluation need no plugin.
    assert "4 train pairs" in done(run("lists", "dataset=mine", "root=photographs", "scale=2", "plugins=[my_layout]"))
    own.remove("data.root=photographs")
    done(run("train", *own, "hydra.run.dir=run2"))
    first, second = (rows(tmp_path / name / "csv" / "metrics.csv", "train/reconstruction") for name in ("run", "run2"))
    assert first == second


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
def test_other_losses_by_overrides_and_by_an_experiment_file_are_the_same(run, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "robust.yaml").write_text(EXPERIMENT.lstrip())
    own = ["--config-dir=my_conf", "+experiment=robust", *TINY[1:-1]]
    for arguments in ([*TINY[:-1], *LOSSES], own, TINY[:-1]):
        finished = run("train", *arguments, f"hydra.run.dir=run{len(list(tmp_path.glob('run*')))}")
        done(finished)
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
def test_adamw_with_cosine_and_warm_up(run, mode: str, tmp_path: Path) -> None:
    finished = run("train", *TINY, *ADAMW, "trainer.max_epochs=3", f"optimization={mode}")
    done(finished)
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
def test_early_stopping_and_a_learning_rate_monitor(run, mode: str, tmp_path: Path) -> None:
    never_better = ["+callbacks.stop.patience=1", "+callbacks.stop.min_delta=99", "trainer.max_epochs=9"]
    finished = run("train", *TINY, *STOP, *never_better, f"optimization={mode}")
    done(finished)
    assert "Trained 4 steps" in finished.stdout  # two epochs of two
    names = (tmp_path / "run" / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert "lr-Adam" in names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("+callbacks.stop.monitor=val/psn", r"metric `val/psn` which is not available\. .*`val/psnr`"),
        ("+callbacks.stop={monitor:val/psnr,mode:most}", "callbacks.stop: `mode` can be .*, got most"),
    ],
)
def test_a_mistake_in_early_stopping_is_one_message(call, argument: str, expected: str) -> None:
    assert re.search(f"^error: .*{expected}", message(call("train", *TINY, argument, STOP[0])))


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


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("+callbacks.x.foo=1", "error: callbacks.x: is no callback; set +callbacks.x._target_=CLASS."),
        ("seed=-1", "error: seed: must be a whole number from 0 to 4294967295, got -1."),
    ],
)
def test_a_callback_without_a_target_and_a_negative_seed_are_one_message(call, argument: str, expected: str) -> None:
    assert message(call("train", *TINY, argument)) == expected


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
