from __future__ import annotations

import subprocess
import sys

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


def test_a_run_folder_gives_its_best_checkpoint(model, tmp_path):
    save_model(tmp_path / "checkpoints" / "last.ckpt", model, {"name": "last"})
    assert read_checkpoint(tmp_path).data == {"name": "last"}
    save_model(tmp_path / "checkpoints" / "best.ckpt", model, {"name": "best"})
    assert read_checkpoint(tmp_path).data == {"name": "best"}


def test_the_home_folder_is_expanded(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "w.ckpt", model)
    assert read_checkpoint("~/w.ckpt").settings == model.settings


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.ckpt: no such checkpoint"):
        load_model(tmp_path / "none.ckpt")


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"a folder without checkpoints/best\.ckpt or model\.safetensors\. Name"):
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


def test_a_torch_file_of_the_legacy_format_is_refused(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"old\.pth: (refused|not an official)"):
        load_model(tmp_path / "old.pth")


def test_another_architecture_is_refused_with_the_differences(model, tmp_path):
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


def test_weights_of_a_wrong_size_are_refused(model, tmp_path):
    save_model(tmp_path / "w.ckpt", model)
    content = torch.load(tmp_path / "w.ckpt", weights_only=True)
    for features, message in ((15, "its weights do not fit its network: .*size mismatch"), (32, "its settings need")):
        content["d2csr"]["network"]["features"] = features
        torch.save(content, tmp_path / "w.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path / "w.ckpt")


def test_weights_are_copied_into_an_existing_model(model, tmp_path):
    save_model(tmp_path / "w.ckpt", model)
    torch.manual_seed(1)
    other = D2CSR(**model.settings)
    assert not same(other, model)
    read_checkpoint(tmp_path / "w.ckpt").load_into(other)
    assert same(other, model)


def network(**settings):
    torch.manual_seed(len(str(settings)))
    return D2CSR(**{"scale": 2, "features": 16, "branching": [2, 2], "fusion_features": 8, **settings})


def test_the_weights_that_fit_are_copied_and_the_others_named(tmp_path):
    source, other = network(scale=2), network(scale=3)
    save_model(tmp_path / "x2.ckpt", source)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    sentences = read_checkpoint(tmp_path / "x2.ckpt").load_matching(other)
    theirs = source.state_dict()
    fitting = {name for name, value in before.items() if name in theirs and theirs[name].shape == value.shape}
    assert 0 < len(fitting) < len(before)
    for name, value in other.state_dict().items():
        assert torch.equal(value, theirs[name] if name in fitting else before[name]), name
    # At ×3 the upsampling of each of the four tails has other weights: one convolution, to 9 times the channels.
    assert sentences == [
        f"{tmp_path}/x2.ckpt: {len(before) - 8} of {len(before)} tensors of the network are loaded.",
        "Initial values are kept in divergence.tails (8 of 16).",
        "Not used of the checkpoint: divergence.tails (8 of 16).",
    ]


def test_a_deeper_network_takes_the_blocks_that_there_are(tmp_path):
    source = network(body={"name": "rcab", "groups": 1, "blocks": 1})
    save_model(tmp_path / "w.ckpt", source)
    other = network(body={"name": "rcab", "groups": 2, "blocks": 1})
    sentences = read_checkpoint(tmp_path / "w.ckpt").load_matching(other)
    assert "Initial values are kept in divergence.bodies (" in sentences[1]
    first = "divergence.bodies.1.0.residual.0.residual.0.weight"
    assert torch.equal(other.state_dict()[first], source.state_dict()[first])


def test_a_checkpoint_of_which_nothing_fits_is_refused(tmp_path):
    save_model(tmp_path / "w.ckpt", network())
    other = network(features=24, fusion_features=12)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="no layer has the name and shape of one of this network"):
        read_checkpoint(tmp_path / "w.ckpt").load_matching(other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.slow
def test_an_unknown_body_needs_its_plugin(tmp_path):
    (tmp_path / "plugin_of_a_test.py").write_text(
        "from torch import nn\n"
        "from d2csr.models import register_body\n\n"
        "@register_body('of a test')\n"
        "class Body(nn.Module):\n"
        "    def __init__(self, features, depth=1):\n"
        "        super().__init__()\n"
        "        import torch\n"
        "        self.rate = torch.linspace(0, 1, 3)[2].item()  # fails on the meta device\n"
        "        self.layers = nn.Sequential(*(nn.Conv2d(features, features, 3, padding=1) for _ in range(depth)))\n"
        "    def forward(self, x):\n"
        "        return self.layers(x)\n"
    )
    script = (
        "import sys, torch\n"
        "from d2csr.plugins import import_plugins\n"
        "from d2csr.models import D2CSR\n"
        "from d2csr.checkpoints import save_model\n"
        "import_plugins(['plugin_of_a_test'])\n"
        "save_model('own.ckpt', D2CSR(2, 8, [2], 4, {'name': 'of a test', 'depth': 2}))\n"
        "content = torch.load('own.ckpt', weights_only=True)\n"
        "content['d2csr']['network']['body']['depth'] = 10**7\n"
        "torch.save(content, 'deep.ckpt')\n"
    )
    load = (
        "import sys\n"
        "from d2csr import load_model\n"
        "try:\n"
        "    print(load_model('own.ckpt'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(load_model('own.ckpt', plugins=['plugin_of_a_test']).settings['body'])\n"
        "try:\n"
        "    load_model('deep.ckpt')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print([name for name in ('pytorch_lightning', 'lightning', 'hydra', 'omegaconf') if name in sys.modules])\n"
    )
    for code in (script, load):
        child = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        assert child.returncode == 0, child.stderr
    unknown, body, deep, imported = child.stdout.splitlines()
    assert "own.ckpt: describes a network that cannot be built: body.name" in unknown
    assert "plugins=[my_module]" in unknown
    assert body == "{'name': 'of a test', 'depth': 2}"
    assert "deep.ckpt: describes a network that cannot be built: its settings need more than its" in deep
    assert imported == "[]"


@pytest.mark.parametrize("average", [False, True])
def test_a_checkpoint_of_the_first_format_is_read(average, model, tmp_path):
    settings = {key: value for key, value in model.settings.items() if key != "body"}
    settings |= {key: value for key, value in model.settings["body"].items() if key != "name"}
    weights = {f"network.{name}": value for name, value in model.state_dict().items()}
    content = {"d2csr": {"format": 1, "version": "0.0.1", "network": settings, "data": {}}, "state_dict": weights}
    if average:
        content["average"] = {name: value + 1 for name, value in model.state_dict().items()}
    torch.save(content, tmp_path / "old.ckpt")
    loaded = load_model(tmp_path / "old.ckpt")
    assert loaded.settings == model.settings
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value + average)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_weights_are_readable_but_make_no_model(value, model, tmp_path):
    model.state_dict()["divergence.head.bias"][3] = value
    save_model(tmp_path / "w.ckpt", model)
    with pytest.raises(CheckpointError, match=r"w\.ckpt: the parameter divergence\.head\.bias has NaN or infinite"):
        load_model(tmp_path / "w.ckpt")
    weights = read_checkpoint(tmp_path / "w.ckpt").weights
    assert [name for name, tensor in weights.items() if not tensor.isfinite().all()] == ["divergence.head.bias"]


def test_only_names_and_paths_of_the_data_are_read(model, tmp_path):
    data = {"name": "pairs", "root": "/r", "test_list": None, "cache_dir": "/home", "num_workers": 400}
    save_model(tmp_path / "w.ckpt", model, data)
    assert read_checkpoint(tmp_path / "w.ckpt").data == {"name": "pairs", "root": "/r", "test_list": None}


@pytest.mark.parametrize("path", ["/dev/zero", "~nosuchuser/w.ckpt", "a\0b", "a" * 5000])
def test_an_invalid_path_is_a_checkpoint_error(path):
    with pytest.raises(
        CheckpointError, match=r"neither a regular file nor a folder|not the path of a checkpoint|no such"
    ):
        load_model(path)
