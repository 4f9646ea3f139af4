"""``d2csr-convert``: equal weights, and no code from a pickle."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import d2csr
from d2csr.checkpoints import save_model
from d2csr.models.bodies import BODIES

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_converted_checkpoint_is_the_same_network(call, scale: int, tmp_path: Path) -> None:
    source = GOLDEN / f"net-x{scale}-f16-b1.pkl"
    finished = call("convert", f"source={source}", "output=out/converted.ckpt")
    assert finished.returncode == 0, finished.stderr
    assert f"scale {scale}, features 16" in finished.stdout
    torch.load(tmp_path / "out" / "converted.ckpt", weights_only=True)
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(d2csr.load_model(tmp_path / "out" / "converted.ckpt")(lr), d2csr.load_model(source)(lr))


def test_the_output_may_be_below_the_home_folder(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    finished = call("convert", f"source={GOLDEN / 'net-x2-f16-b1.pkl'}", "output=~/x2.ckpt")
    assert finished.returncode == 0, finished.stderr
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.ckpt")] == ["home/x2.ckpt"]


@pytest.mark.parametrize(
    ("command", "key", "suffix"),
    [("convert", "source", "ckpt"), ("export", "ckpt", "onnx"), ("summary", "ckpt", "json")],
)
def test_an_output_of_an_unknown_user_is_named(call, tmp_path: Path, command: str, key: str, suffix: str) -> None:
    finished = call(command, f"{key}={GOLDEN / 'net-x2-f16-b1.pkl'}", f"output=~nosuchuser/x2.{suffix}")
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"error: ~nosuchuser/x2.{suffix}: there is no such user. ")
    assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_safetensors_are_written(call, tmp_path: Path) -> None:
    source = GOLDEN / "net-x2-f16-b1.pkl"
    finished = call("convert", f"source={source}", "output=x2.safetensors")
    assert finished.returncode == 0, finished.stderr
    with safe_open(tmp_path / "x2.safetensors", "pt") as file:
        assert file.metadata()["modelspec.sai_model_spec"] == "1.0.1"
        assert "tests" not in str(file.metadata())  # no path of this machine
    ours, theirs = d2csr.load_model(tmp_path / "x2.safetensors"), d2csr.load_model(source)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["x2.safetensors"]


def test_a_missing_safetensors_is_named(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    finished = call("convert", f"source={GOLDEN / 'net-x2-f16-b1.pkl'}", "output=x2.safetensors")
    assert finished.returncode == 1
    assert (
        finished.stderr == "error: a safetensors file needs safetensors; install it by: pip install 'd2csr[export]'.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_that_wants_to_run_code_is_refused(call, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps({"state_dict_D": Hostile(), "state_dict_C": {}}))
    finished = call("convert", "source=hostile.pkl", "output=converted.ckpt")
    assert finished.returncode == 1
    assert "refused" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "it ran").exists()
    assert not (tmp_path / "converted.ckpt").exists()


def test_missing_arguments_are_named(call) -> None:
    finished = call("convert")
    assert finished.returncode == 1
    assert "output=… source=… is missing" in finished.stderr


@pytest.mark.parametrize("name", ["x2.onnx", "x2.pkl", "x2"])
def test_a_suffix_of_another_format_is_refused(call, name: str, tmp_path: Path) -> None:
    finished = call("convert", f"source={GOLDEN / 'net-x2-f16-b1.pkl'}", f"output={name}")
    assert finished.returncode == 1
    assert f"output={name}: the suffix must be .ckpt, .pt, .pth" in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_on_request_only(call, tmp_path: Path) -> None:
    arguments = [f"source={GOLDEN / 'net-x2-f16-b1.pkl'}", "output=x2.pt"]
    (tmp_path / "x2.pt").write_text("mine")
    finished = call("convert", *arguments)
    assert finished.returncode == 1
    assert "output: x2.pt exists; choose another name, or add overwrite=true." in finished.stderr
    assert (tmp_path / "x2.pt").read_text() == "mine"
    assert call("convert", *arguments, "overwrite=true").returncode == 0
    assert d2csr.load_model(tmp_path / "x2.pt").scale == 2


def test_the_source_and_a_folder_are_never_replaced(call, tmp_path: Path) -> None:
    source = tmp_path / "own.ckpt"
    source.write_bytes((GOLDEN / "net-x2-f16-b1.pkl").read_bytes())
    (tmp_path / "folder.ckpt").mkdir()
    for output, message in (("own.ckpt", "is the source itself"), ("folder.ckpt", "a folder")):
        finished = call("convert", "source=own.ckpt", f"output={output}", "overwrite=true")
        assert finished.returncode == 1
        assert message in finished.stderr
    assert source.read_bytes() == (GOLDEN / "net-x2-f16-b1.pkl").read_bytes()


def test_nothing_is_left_in_the_folder_but_the_output(call, tmp_path: Path) -> None:
    call("convert", f"source={GOLDEN / 'net-x2-f16-b1.pkl'}", "output=converted.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["converted.ckpt"]


def test_control_characters_of_a_checkpoint_do_not_reach_the_terminal(call, tmp_path: Path) -> None:
    pickled = b"\x80\x04X\x03\x00\x00\x00\x1b[2X\x03\x00\x00\x00a\x07b\x93."
    (tmp_path / "hostile.pkl").write_bytes(pickled)
    finished = call("convert", "source=hostile.pkl", "output=converted.ckpt")
    assert finished.returncode == 1
    assert "it asks for \\x1b[2.a\\x07b" in finished.stderr
    assert "\x1b" not in finished.stderr


def test_a_body_of_the_users_own_is_converted(call, tmp_path: Path) -> None:
    (tmp_path / "bodies_to_convert.py").write_text(
        "from torch import nn\n"
        "from d2csr.models import register_body\n\n"
        "@register_body('to convert')\n"
        "class Body(nn.Conv2d):\n"
        "    def __init__(self, features):\n"
        "        super().__init__(features, features, 3, padding=1)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        importlib.import_module("bodies_to_convert")
    model = d2csr.D2CSR(2, 8, [2], 4, "to convert")
    save_model(tmp_path / "own.ckpt", model)
    BODIES.pop("to convert")
    finished = call("convert", "source=own.ckpt", "output=converted.ckpt")
    assert finished.returncode == 1
    assert "plugins=[my_module]" in finished.stderr
    finished = call("convert", "source=own.ckpt", "output=converted.ckpt", "plugins=[bodies_to_convert]")
    assert finished.returncode == 0, finished.stderr
    weights = torch.load(tmp_path / "converted.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(weights["network.divergence.bodies.1.weight"], model.divergence.bodies["1"].weight)
