from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import d2csr
from d2csr import D2CSR
from d2csr.checkpoints import save_model
from d2csr.checkpoints.card_facts import card_facts
from d2csr.errors import CheckpointError, ConfigError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a checkpoint without training state, and its evaluation."""
    torch.manual_seed(0)
    model = D2CSR(2, 8, [2], 8, {"name": "edsr", "blocks": 1})
    data = {"name": "realsr", "train_list": "/data/lists/realsr_x2_train.txt"}
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save_model(path, model, data)
    write_metrics(tmp_path / "run" / "eval", path)
    return tmp_path / "run"


def write_metrics(folder: Path, checkpoint: Path, **changes: Any) -> None:
    scores = {"scored_on": "float", "images": [{}, {}]}
    methods = {"bicubic": {"psnr": 20.0, "ssim": 0.5}, "fusion": {"psnr": 25.0, "ssim": None}, "leaf 1": {"psnr": 1.0}}
    content = {
        "protocol": "d2csr",
        "scale": 2,
        **scores,
        "methods": methods,
        "protocols": {"y": {**scores, "methods": {**methods, "fusion": {"psnr": 24.0, "ssim": 0.75}}}},
        "checkpoints": [{"method": "fusion", "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}],
        "environment": {"command": "d2csr-eval ckpt=run"},
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(content))


def test_scores_are_those_of_the_evaluation(run: Path) -> None:
    facts = card_facts(d2csr.load_model(run), checkpoint=run)
    assert [(one.protocol, one.images) for one in facts.scores] == [("d2csr", 2), ("y", 2)]
    assert facts.scores[0].methods == {"bicubic": {"psnr": 20.0, "ssim": 0.5}, "this model": {"psnr": 25.0}}
    assert facts.scores[1].methods["this model"] == {"psnr": 24.0, "ssim": 0.75}
    assert facts.dataset == "RealSR test, ×2"
    assert facts.training == {"Training data": "RealSR, list realsr_x2_train.txt"}  # no folder of this machine
    assert (facts.leaves, facts.whole_image, facts.for_spandrel) == (2, False, True)
    assert facts.parameters == sum(p.numel() for p in d2csr.load_model(run).parameters())


def test_other_test_images_are_not_called_those_of_the_training(run: Path) -> None:
    command = {"command": "d2csr-eval ckpt=run 'data.test_list=/mine (1).txt'"}
    write_metrics(run / "eval", run / "checkpoints" / "best.ckpt", environment=command)
    assert card_facts(d2csr.load_model(run), checkpoint=run).dataset is None
    assert card_facts(d2csr.load_model(run), checkpoint=run, dataset="Mine").dataset == "Mine"


def test_an_evaluation_of_another_checkpoint_is_refused(run: Path) -> None:
    write_metrics(run / "eval", run / "eval" / "metrics.json")
    with pytest.raises(CheckpointError, match="an evaluation of other checkpoints"):
        card_facts(d2csr.load_model(run), checkpoint=run)


def test_a_checkpoint_of_other_weights_is_refused(run: Path) -> None:
    model = d2csr.load_model(run)
    with torch.no_grad():
        model.divergence.head.bias += 1
    with pytest.raises(CheckpointError, match="holds other weights than the model"):
        card_facts(model, checkpoint=run)


def test_without_a_run_nothing_is_claimed(run: Path) -> None:
    facts = card_facts(d2csr.load_model(run))
    assert not facts.training
    assert not facts.scores
    assert facts.dataset is None
    assert not facts.pictures


def test_an_official_pickle_is_named(golden: Path) -> None:
    path = golden / "net-x2-f16-b1.pkl"
    assert "official implementation" in card_facts(d2csr.load_model(path), checkpoint=path).training["Weights"]


def test_impossible_arguments(run: Path, tmp_path: Path) -> None:
    model = d2csr.load_model(run)
    with pytest.raises(ConfigError, match=r"evaluation: .*nowhere has no metrics\.json"):
        card_facts(model, checkpoint=run, evaluation=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="evaluation: needs checkpoint"):
        card_facts(model, evaluation=run / "eval")
    with pytest.raises(ConfigError, match="pictures: must be a whole number from 0"):
        card_facts(model, checkpoint=run, pictures=-1)


@pytest.mark.parametrize("content", ["{", "[" * 50_000, "[]", '{"checkpoints": [{}]}', '{"checkpoints": 3}'])
def test_a_broken_evaluation_is_refused(content: str, run: Path) -> None:
    (run / "eval" / "metrics.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"metrics\.json: not the scores of d2csr-eval"):
        card_facts(d2csr.load_model(run), checkpoint=run)


@pytest.mark.slow
def test_a_run_is_described(demo_run: Path) -> None:
    facts = card_facts(d2csr.load_model(demo_run), checkpoint=demo_run)
    measured = json.loads((demo_run / "eval" / "metrics.json").read_text())
    assert facts.scores[0].methods["this model"] == measured["mean"]
    assert facts.scores[0].images == 3
    assert facts.training["Training data"] == "built-in photographs of d2csr"
    assert facts.training["Batch"] == "8 patches of 24×24 LR pixels per device"
    assert facts.training["Optimization"] == "joint, Adam, learning rate 0.001"
    assert facts.training["Seed"] == "0"
    assert facts.training["Length"].endswith(" steps")
    assert [picture.parent.name for picture in facts.pictures] == ["panels"] * 3
