from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

import d2csr

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
