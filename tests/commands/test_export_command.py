from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

import d2csr
from d2csr.checkpoints import save_model

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


def test_an_existing_file_is_kept(call, tmp_path: Path) -> None:
    (tmp_path / "x2.safetensors").write_text("mine")
    finished = call("export", CKPT, "output=x2.safetensors")
    assert finished.returncode == 1
    assert finished.stderr == "error: output: x2.safetensors exists; choose another name, or add overwrite=true.\n"
    assert (tmp_path / "x2.safetensors").read_text() == "mine"
    assert call("export", CKPT, "output=x2.safetensors", "overwrite=true").returncode == 0
    assert d2csr.load_model(tmp_path / "x2.safetensors").scale == 2


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
