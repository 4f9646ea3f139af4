"""``match=…`` of d2csr-train: the size is chosen once, and files of the run hold plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

import d2csr
import d2csr.models.matching
from d2csr.commands.base import config_dir
from d2csr.commands.network_match import apply_match
from d2csr.models import build_network

TINY = [
    *("+experiment=demo", "trainer=cpu", "data.patch_size=8", "data.batch_size=2", "data.patches_per_image=1"),
    *("model.network.features=16", "trainer.enable_progress_bar=false", "callbacks=none", "hydra.run.dir=run"),
]
MATCH = ["match=flops", "match_to.paths=1", "match_to.features=64"]


def size(settings: dict[str, Any]) -> tuple[int, int]:
    """Return parameters and FLOPs, counted without the package's own counters."""
    with torch.device("meta"):
        network, lr = build_network(settings), torch.empty(1, 3, 48, 48)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(lr)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops()


@pytest.mark.slow
def test_a_matched_run_is_an_ordinary_run_with_the_chosen_numbers(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = call("train", *TINY, *MATCH, "trainer.max_epochs=1")
    assert first.returncode == 0, first.stderr
    settings = d2csr.load_model("run").settings
    single = {"architecture": "ensemble", "scale": 2, "features": 64, "body": settings["body"], "paths": 1}
    assert size(settings)[1] == pytest.approx(size(single)[1], rel=0.05)
    assert settings["features"] != 16
    assert f"model.network.features={settings['features']} (was 16)" in first.stdout
    saved = OmegaConf.load("run/.hydra/config.yaml")
    assert (saved.match, saved.model.network.features) == (None, settings["features"])
    assert saved.model.network.fusion_features == settings["fusion_features"]
    stored = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert "'match" not in repr(stored["hyper_parameters"])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(d2csr.models.matching, "match_network", refuse)
    again = call("train", *TINY, *MATCH, "trainer.max_epochs=2", "resume=auto")
    assert again.returncode == 0, again.stderr
    assert d2csr.load_model("run/checkpoints/last.ckpt").settings == settings
    assert "was" not in again.stdout.replace("trainer.max_epochs was 1, is 2", "")
    assert call("eval", "ckpt=run", "trainer=cpu", "hydra.run.dir=eval").returncode == 0


MISTAKES = [
    (["match=flops"], "match: no reference network; set match_to.paths=1"),
    (["match=flops", "match_to.paths=0"], "match_to.paths: must be a whole number from 1 to 9, got 0."),
    (["match=flops", "match_to.paths=1", "match_to.branching=[2]"], "match_to.paths: a network has either paths or"),
    (["match=flops", "match_to.paths=1", "match_to.body.bloks=2"], "match_to.body.bloks: the body 'rcab' has no"),
    pytest.param(
        ["match=flops", "match_by=depth", "match_to.paths=1"],  # a tree has more FLOPs with a single block
        "match: no depth of the network comes within 10 % of the reference",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_message(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    finished = call("train", *TINY, *arguments)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("experiment", "quantity", "most"),
    [
        ("realsr_x4_edsr", "flops", 2),
        ("realsr_x4_edsr", "parameters", 2),
        pytest.param("realsr_x4_imdn", "flops", 10, marks=pytest.mark.slow),
        pytest.param("realsr_x4_imdn", "parameters", 10, marks=pytest.mark.slow),
        pytest.param("realsr_x4_rcan", "flops", 2, marks=pytest.mark.slow),
    ],
)
def test_the_tree_of_a_baseline_has_its_size(experiment: str, quantity: str, most: float) -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        single = compose("train", overrides=[f"+experiment={experiment}"])
        tree = compose("train", overrides=[f"+experiment={experiment}_d2c", f"match={quantity}"])
    assert apply_match(tree)
    ours, theirs = (size(OmegaConf.to_container(cfg.model.network, resolve=True)) for cfg in (tree, single))
    index = ("parameters", "flops").index(quantity)
    assert abs(ours[index] / theirs[index] - 1) * 100 < most
    assert list(tree.model.network.branching) == [2, 2]


def test_a_task_of_another_package_has_no_network_to_match(call, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Plain(pl.LightningModule):\n"
        "    def training_step(self, batch, index): ...\n"
        "    def configure_optimizers(self): ...\n"
    )
    arguments = ["plugins=[my_task]", "model._target_=my_task.Plain", "match=flops", "match_to.paths=1"]
    finished = call("train", "+experiment=demo", *arguments, "hydra.run.dir=run")
    assert finished.stderr.startswith("error: match: my_task.Plain has no network of d2csr")
