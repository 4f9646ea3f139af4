from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import d2csr
from d2csr.checkpoints import save_model
from fake_hub import FakeHub, Repository

GOLDEN = Path(__file__).parents[1] / "golden"
CKPT = f"ckpt={GOLDEN / 'net-x2-f16-b1.pkl'}"


def test_safetensors_are_written_and_loaded(call, tmp_path: Path) -> None:
    finished = call("export", CKPT, "output=x2.safetensors", "about.author=Me")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("x2.safetensors: ")
    assert "×2; largest difference to the model: 0.0e+00" in finished.stdout
    ours, theirs = (d2csr.load_model(path) for path in (tmp_path / "x2.safetensors", GOLDEN / "net-x2-f16-b1.pkl"))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    with safe_open(tmp_path / "x2.safetensors", "pt") as file:
        assert file.metadata()["modelspec.author"] == "Me"


def test_a_setting_that_spandrel_cannot_see_is_said(call, tmp_path: Path) -> None:
    body = {"name": "edsr", "blocks": 1, "residual_scale": 0.1}
    save_model(tmp_path / "edsr.ckpt", d2csr.D2CSR(2, 8, [2], 8, body))
    finished = call("export", "ckpt=edsr.ckpt", "output=edsr.safetensors")
    assert finished.returncode == 0, finished.stderr
    first, second = finished.stdout.splitlines()
    assert first.startswith("edsr.safetensors: ")
    assert second == (
        "Not for spandrel, chaiNNer and ComfyUI, which read the weights alone: body.residual_scale is 0.1, which "
        "leaves no trace in the weights; 1.0 would be assumed."
    )


def test_averaged_weights_are_exported(call, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, averaged = (d2csr.D2CSR(2, 8, [2], 8, {"name": "edsr", "blocks": 1}) for _ in range(2))
    save_model(tmp_path / "run.ckpt", trained)
    content = torch.load(tmp_path / "run.ckpt", weights_only=True)
    torch.save({**content, "average": averaged.state_dict()}, tmp_path / "run.ckpt")
    assert call("export", "ckpt=run.ckpt", "output=x2.safetensors").returncode == 0
    exported = load_file(tmp_path / "x2.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in averaged.state_dict().items())


@pytest.mark.parametrize("value", ["1", "true", "[a]"])
def test_a_title_that_is_no_text_is_refused(call, tmp_path: Path, value: str) -> None:
    finished = call("export", CKPT, "output=x2.safetensors", f"about.title={value}")
    assert finished.returncode == 1
    assert re.fullmatch(r"error: about.title: must be a text, got .+\.\n", finished.stderr)
    assert not any(tmp_path.iterdir())


def test_an_existing_file_is_kept(call, tmp_path: Path) -> None:
    (tmp_path / "x2.safetensors").write_text("mine")
    finished = call("export", CKPT, "output=x2.safetensors")
    assert finished.returncode == 1
    assert finished.stderr == "error: output: x2.safetensors exists; choose another name, or add overwrite=true.\n"
    assert (tmp_path / "x2.safetensors").read_text() == "mine"
    assert call("export", CKPT, "output=x2.safetensors", "overwrite=true").returncode == 0
    assert d2csr.load_model(tmp_path / "x2.safetensors").scale == 2


def test_a_folder_for_the_hub_is_written(call, tmp_path: Path) -> None:
    finished = call("export", CKPT, "output=hub/x2", "about.license=mit", "card.repo=me/x2")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == (
        "hub/x2: config.json, model.safetensors, README.md\n"
        "Complete README.md, then upload the folder: hf upload me/x2 hub/x2 .\n"
    )
    card = tmp_path / "hub" / "x2" / "README.md"
    assert ModelCard.load(card).data.license == "mit"
    assert "hf://me/x2" in card.read_text()
    assert d2csr.load_model(tmp_path / "hub" / "x2").scale == 2

    card.write_text("completed by hand")
    finished = call("export", CKPT, "output=hub/x2")
    assert finished.stderr == "error: output: hub/x2 exists; choose another name, or add overwrite=true.\n"
    finished = call("export", CKPT, "output=hub/x2", "overwrite=true")
    assert "README.md (kept as it was)" in finished.stdout
    assert card.read_text() == "completed by hand"


def test_mistakes_in_a_card(call, tmp_path: Path) -> None:
    for arguments, message in (
        (["card.evaluation=nowhere"], "card.evaluation: nowhere has no metrics.json."),
        (["card.pictures=-1"], "card.pictures: must be a whole number from 0 up, got -1."),
        (["card.picture=1"], "card.picture"),
        (
            ["precision=16"],
            "outputs, precision: a folder for the hub holds the weights in single precision",
        ),
    ):
        finished = call("export", CKPT, "output=hub", *arguments)
        assert finished.returncode == 1
        assert message in finished.stderr
        assert "Traceback" not in finished.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_card_of_a_run_holds_its_scores_and_pictures(call, demo_run: Path, tmp_path: Path) -> None:
    finished = call("export", f"ckpt={demo_run}", "output=hub", "about.author=Me")
    assert finished.returncode == 0, finished.stderr
    assert "check that you may publish them" in finished.stdout
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    measured = json.loads((demo_run / "eval" / "metrics.json").read_text())["mean"]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"psnr": round(measured["psnr"], 2), "ssim": round(measured["ssim"], 4)}
    pictures = re.findall(r"\]\((images/.+)\)", card.text)
    assert len(pictures) == 3
    assert all((tmp_path / "hub" / picture).is_file() for picture in pictures)
    assert str(demo_run.parent) not in card.content  # no folder of this machine


@pytest.mark.slow
def test_a_model_of_the_hub_is_used_by_the_commands(call, hub: FakeHub, tmp_path: Path) -> None:
    d2csr.load_model(GOLDEN / "net-x2-f16-b1.pkl").save_pretrained(tmp_path / "x2")
    hub.repositories["me/x2"] = Repository({path.name: path.read_bytes() for path in (tmp_path / "x2").iterdir()})
    Image.effect_noise((8, 6), 50).save(tmp_path / "a.png")
    finished = call("upscale", "ckpt=hf://me/x2@v1", "input=a.png", "output=results")
    assert finished.returncode == 0, finished.stderr
    with Image.open(tmp_path / "results" / "a.png") as result:
        assert result.size == (16, 12)
    assert "HTTP" not in finished.stdout + finished.stderr  # the log of httpx
    finished = call("convert", "source=hf://me/x2", "output=x2.ckpt")
    assert finished.returncode == 0, finished.stderr
    finished = call("eval", "ckpt=hf://me/nothing", "data.test_list=a.png")
    assert finished.returncode == 1
    assert "hf://me/nothing: no such repository" in finished.stderr


def test_mistakes_end_in_one_message(call) -> None:
    for arguments, message in (
        ([CKPT], "output=… is missing; see --help."),
        ([CKPT, "output=x2.pth"], "output: must be one of .onnx, .pt2, .safetensors, got '.pth'."),
        (["ckpt=nowhere.ckpt", "output=x2.onnx"], "nowhere.ckpt: no such checkpoint."),
    ):
        finished = call("export", *arguments)
        assert finished.returncode == 1
        assert message in finished.stderr
        assert "Traceback" not in finished.stderr
