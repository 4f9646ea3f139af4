from __future__ import annotations

import io
import zipfile

import pytest
import torch

import d2csr
from d2csr.checkpoints import read_checkpoint, save_model
from d2csr.checkpoints.own import read_own
from d2csr.errors import CheckpointError

DATA = {"name": "pairs", "scale": 2, "test_list": "/lists/test.txt", "root": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.ckpt"


def test_saved_weights_are_read_back(model, path):
    save_model(path, model, DATA)
    settings, weights, data = read_own(path)
    assert settings == model.settings
    assert data == DATA
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_checkpoint_holds_only_plain_values_and_tensors(model, path):
    save_model(path, model, DATA)
    content = torch.load(path, weights_only=True)
    assert content["d2csr"]["network"] == model.settings
    assert content["d2csr"]["version"] == d2csr.__version__
    assert all(name.startswith("network.") for name in content["state_dict"])


def test_missing_folders_are_made(model, tmp_path):
    save_model(tmp_path / "new" / "folder" / "w.ckpt", model)
    assert read_checkpoint(tmp_path / "new" / "folder" / "w.ckpt").settings == model.settings


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError("PytorchStreamWriter failed writing file"), "no space left on this disk"),
        (OSError("broken pipe"), "broken pipe"),
    ],
)
def test_a_failed_save_keeps_the_old_file_and_leaves_no_partial(failure, reason, model, path, monkeypatch):
    save_model(path, model)
    before = path.read_bytes()

    def write_half(content, file):
        file.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(CheckpointError, match=rf"weights\.ckpt: cannot be written \({reason}\)"):
        save_model(path, model)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_save_keeps_the_old_file_and_leaves_no_partial(model, path, monkeypatch):
    save_model(path, model)
    before = path.read_bytes()

    def write_half(content, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, model)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(tmp_path / "file" / "w.ckpt", model)


def test_malicious_code_in_a_torch_file_is_refused_and_not_run(model, path, trap):
    torch.save({"d2csr": {"network": model.settings}, "state_dict": model.state_dict(), "x": trap}, path)
    with pytest.raises(CheckpointError, match=r"weights\.ckpt: a broken or foreign checkpoint"):
        read_checkpoint(path)
    assert not trap.path.exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert trap.path.exists()


def foreign(name, model):
    ours, weights = {"network": model.settings}, {f"network.{k}": v for k, v in model.state_dict().items()}
    return {
        "a state dict alone": model.state_dict(),
        "a tensor": torch.zeros(3),
        "another project's checkpoint": {"state_dict": weights, "epoch": 3},
        "no weights": {"d2csr": ours},
        "no description of the network": {"d2csr": {}, "state_dict": weights},
        "a description of another kind": {"d2csr": {"network": [1]}, "state_dict": weights},
        "weights of another kind": {"d2csr": ours, "state_dict": []},
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "a state dict alone",
        "a tensor",
        "another project's checkpoint",
        "no weights",
        "no description of the network",
        "a description of another kind",
        "weights of another kind",
    ],
)
def test_a_foreign_torch_file_is_refused(name, model, path):
    torch.save(foreign(name, model), path)
    with pytest.raises(CheckpointError, match="a PyTorch file, but no checkpoint of this package"):
        read_checkpoint(path)


def test_weights_without_names_are_refused(model, path):
    torch.save({"d2csr": {"network": model.settings}, "state_dict": {1: torch.zeros(3)}}, path)
    with pytest.raises(CheckpointError, match="a malformed checkpoint: state_dict: must be a dict with names as keys"):
        read_checkpoint(path)


def test_a_checkpoint_of_a_newer_format_asks_for_an_update(model, path):
    save_model(path, model)
    content = torch.load(path, weights_only=True)
    content["d2csr"] |= {"format": 99, "version": "9.9"}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"written by a newer version of d2csr \(9\.9\); please update"):
        read_checkpoint(path)


@pytest.mark.parametrize("members", [["readme.txt"], ["archive/data.pkl", "archive/version"]])
def test_a_zip_file_of_something_else_is_refused(members, path):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "3" if member.endswith("version") else "")
    with pytest.raises(CheckpointError, match="a broken or foreign checkpoint"):
        read_checkpoint(path)


def test_a_file_cut_anywhere_is_refused(model, path):
    buffer = io.BytesIO()
    torch.save({"d2csr": {"network": model.settings}, "state_dict": {}}, buffer)
    whole = buffer.getvalue()
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"weights\.ckpt: "):
            read_checkpoint(path)
