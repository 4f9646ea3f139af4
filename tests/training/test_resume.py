"""Comparison of the settings of two runs."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from d2csr.commands.base import config_dir
from d2csr.training.resume import changes

BEFORE = {
    "seed": 0,
    "data": {"batch_size": 4, "num_workers": 4, "augment": True, "root": None},
    "model": {"branching": [2, 2]},
    "trainer": {"max_epochs": 10},
}


def test_every_setting_that_differs_is_named() -> None:
    now = {
        "seed": 1,
        "data": {"batch_size": 8, "num_workers": 0, "augment": False, "root": "/data"},
        "model": {"branching": [4], "ema_decay": 0.999},
        "trainer": {"max_epochs": 20},
    }
    sentences, decisive = changes(BEFORE, now)
    assert sentences == [
        "seed was 0, is 1",
        "data.batch_size was 4, is 8",
        "data.num_workers was 4, is 0",
        "data.augment was true, is false",
        "data.root was null, is /data",
        "model.branching was [2, 2], is [4]",
        "trainer.max_epochs was 10, is 20",
        "model.ema_decay was not set, is 0.999",
    ]
    assert decisive == ["seed", "data.batch_size", "data.augment", "data.root", "model.branching", "model.ema_decay"]


def test_the_shipped_callbacks_do_not_change_the_weights() -> None:
    """A run of a version before one of them was added resumes without a warning."""
    shipped = OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / "callbacks" / "default.yaml"))
    assert isinstance(shipped, dict)
    _, decisive = changes(BEFORE, {**BEFORE, "callbacks": {name: {"_target_": "x"} for name in shipped}})
    assert len(shipped) >= 5
    assert decisive == []


def test_equal_settings_are_not_named() -> None:
    assert changes(BEFORE, {**BEFORE, "resume": "auto"}) == ([], [])


def test_settings_of_an_older_version_are_compared_by_their_present_names() -> None:
    before = {
        "data": {"_target_": "d2csr.demo.datamodule.DemoDataModule"},  # the former place of the class
        "model": {"features": 64, "blocks": 4, "ema_decay": None},
        "panels": {"crop": 64},
    }
    now = {
        "data": {"_target_": "d2csr.demo.demo_pairs.DemoDataModule"},
        "model": {"network": {"features": 32, "body": {"name": "rcab", "blocks": 4}}, "ema_decay": None},
        "callbacks": {"panels": {"crop": 128, "_target_": "x"}},
    }
    sentences, decisive = changes(before, now)
    assert sentences == ["model.network.features was 64, is 32", "callbacks.panels.crop was 64, is 128"]
    assert decisive == ["model.network.features"]


def test_a_setting_that_was_a_constant_is_compared_with_its_value() -> None:
    before = {"model": {"scheduler": {"halve_every": 3}, "divergence": {"halve_every": 3}}}
    now = {
        "model": {
            "init": "torch",
            "scheduler": {"decay_every": 3, "decay_factor": 0.5},
            "divergence": {"decay_every": 3, "decay_factor": 0.1},
        }
    }
    assert changes(before, now) == (
        ["model.divergence.decay_factor was 0.5, is 0.1"],
        ["model.divergence.decay_factor"],
    )
    loss = {"model": {"losses": {"divergence": {"error_term": False}}}}
    name = "model.losses.divergence.error_term"
    assert changes({"model": {}}, loss) == ([f"{name} was true, is false"], [name])
    assert changes({"trainer": {}}, {"trainer": {"tf32": True}}) == ([], [])
