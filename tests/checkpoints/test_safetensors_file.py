from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from d2csr import load_model
from d2csr.checkpoints.safetensors_file import ARCHITECTURE, write_safetensors
from d2csr.errors import CheckpointError
from d2csr.models import D2CSR


@pytest.fixture
def model() -> D2CSR:
    torch.manual_seed(0)
    return D2CSR(2, 8, [2], 8, {"name": "edsr", "blocks": 1})


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    return str(error.value)


def test_weights_and_architecture_are_kept(model: D2CSR, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m.safetensors", model)
    (tmp_path / "m.safetensors").rename(tmp_path / "m.bin")  # recognised by its content
    loaded = load_model(tmp_path / "m.bin")
    assert loaded.settings == model.settings
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_half_precision_is_loaded_in_single_precision(model: D2CSR, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m.safetensors", model, dtype=torch.float16)
    loaded = load_model(tmp_path / "m.safetensors")
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.half().float())


def test_foreign_and_broken_files_are_refused(model: D2CSR, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path)
    assert "no export of this package" in refused(path)
    write_safetensors(path, model)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "a broken safetensors file" in refused(path)
    path.write_bytes(whole[:50])
    assert "a broken safetensors file" in refused(path)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("[1, 2]", "network: must be a dict with names as keys"),
        ("{", "a broken safetensors file"),
        ("[" * 100_000, "a broken safetensors file"),
        (json.dumps({"_target_": "os.system"}), "describes a network that cannot be built"),
        (
            json.dumps({"scale": 2, "features": 12000, "branching": [9] * 6, "fusion_features": 8, "body": "rcab"}),
            "describes a network that cannot be built",
        ),
    ],
)
def test_a_strange_architecture_is_refused(model: D2CSR, tmp_path: Path, architecture: str, message: str) -> None:
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, tmp_path / "m.safetensors", {ARCHITECTURE: architecture})
    assert message in refused(tmp_path / "m.safetensors")


def test_weights_that_are_not_finite_are_refused(model: D2CSR, tmp_path: Path) -> None:
    with torch.no_grad():
        model.divergence.head.weight[0] = torch.nan
    write_safetensors(tmp_path / "m.safetensors", model)
    assert "divergence.head.weight has NaN or infinite values" in refused(tmp_path / "m.safetensors")
