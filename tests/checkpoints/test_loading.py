from __future__ import annotations

import pytest
import torch

from d2csr import load_model
from d2csr.checkpoints import read_checkpoint, save_model
from d2csr.errors import CheckpointError
from d2csr.models import D2CSR


def same(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_all_forms_give_the_same_model(golden, tmp_path):
    official = load_model(golden / "net-x3-f16-b1.pkl")
    save_model(tmp_path / "export.ckpt", official)
    save_model(tmp_path / "run" / "checkpoints" / "last.ckpt", official)
    lr = torch.rand(1, 3, 6, 5)
    for path in (tmp_path / "export.ckpt", tmp_path / "run", tmp_path / "run" / "checkpoints"):
        model = load_model(path)
        assert same(model, official)
        assert torch.equal(model(lr), official(lr))


def test_a_loaded_model_is_ready_for_inference(model, tmp_path):
    save_model(tmp_path / "w.ckpt", model.train())
    loaded = load_model(str(tmp_path / "w.ckpt"))
    assert not loaded.training
    assert loaded.scale == 2
    assert load_model(tmp_path / "w.ckpt", device="meta").convergence.layers[0].weight.device.type == "meta"


def test_of_a_run_folder_the_best_checkpoint_is_taken(model, tmp_path):
    save_model(tmp_path / "checkpoints" / "last.ckpt", model, {"name": "last"})
    assert read_checkpoint(tmp_path).data == {"name": "last"}
    save_model(tmp_path / "checkpoints" / "best.ckpt", model, {"name": "best"})
    assert read_checkpoint(tmp_path).data == {"name": "best"}


def test_the_home_folder_is_known(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "w.ckpt", model)
    assert read_checkpoint("~/w.ckpt").settings == model.settings


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.ckpt: no such checkpoint"):
        load_model(tmp_path / "none.ckpt")


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"a folder without checkpoints/best\.ckpt\. Name a checkpoint or a run"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "refused"), (b"some text\n", "refused"), (b"PK\x03\x04 cut", "a broken or"), (b"\x80\x04\x95", "refused")],
)
def test_a_broken_file_is_refused(content, message, tmp_path):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"broken\.ckpt: {message}"):
        load_model(path)


def test_a_torch_file_of_the_old_kind_is_refused(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"old\.pth: (refused|not an official)"):
        load_model(tmp_path / "old.pth")


def test_another_architecture_is_refused_with_what_differs(model, tmp_path):
    save_model(tmp_path / "w.ckpt", model)
    other = D2CSR(**{**model.settings, "scale": 4, "branching": [2, 2]})
    kept = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / "w.ckpt").load_into(other)
    assert "another architecture: scale is 2 in the checkpoint and 4 here" in str(error.value)
    assert "branching is [3] in the checkpoint and [2, 2] here" in str(error.value)
    assert "features" not in str(error.value)
    assert all(torch.equal(value, kept[name]) for name, value in other.state_dict().items())


def test_settings_that_build_no_network_are_refused(model, tmp_path):
    for change in ({"scale": 7}, {"colour": 3}, {"branching": 2}):
        save_model(tmp_path / "w.ckpt", model)
        content = torch.load(tmp_path / "w.ckpt", weights_only=True)
        content["d2csr"]["network"] |= change
        torch.save(content, tmp_path / "w.ckpt")
        with pytest.raises(CheckpointError, match="describes a network that cannot be built"):
            load_model(tmp_path / "w.ckpt")


def test_weights_of_another_size_than_the_settings_say_are_refused(model, tmp_path):
    save_model(tmp_path / "w.ckpt", model)
    content = torch.load(tmp_path / "w.ckpt", weights_only=True)
    for features, message in ((15, "its weights do not fit its network: .*size mismatch"), (32, "its settings need")):
        content["d2csr"]["network"]["features"] = features
        torch.save(content, tmp_path / "w.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path / "w.ckpt")


def test_weights_go_into_a_model_that_is_there(model, tmp_path):
    save_model(tmp_path / "w.ckpt", model)
    torch.manual_seed(1)
    other = D2CSR(**model.settings)
    assert not same(other, model)
    read_checkpoint(tmp_path / "w.ckpt").load_into(other)
    assert same(other, model)
