from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin, constants
from safetensors.torch import save, save_file

import d2csr
import d2csr.models
from d2csr import D2CSR
from d2csr.checkpoints import read_checkpoint, save_model
from d2csr.checkpoints.pretrained import PathEnsemble
from d2csr.errors import CheckpointError, ConfigError
from d2csr.hub import transfer
from fake_hub import COMMIT, FakeHub, Repository

TINY = {"scale": 2, "features": 8, "branching": [2], "fusion_features": 8}
TREE = {**TINY, "body": {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 4}}


class TheirD2CSR(d2csr.models.D2CSR, PyTorchModelHubMixin):
    """The network with huggingface_hub's own methods."""


def build(kind: type[d2csr.models.D2CSR] = D2CSR) -> d2csr.models.D2CSR:
    torch.manual_seed(0)
    return kind(**TREE).eval()


def assert_equal(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    lr = torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        assert torch.equal(ours(lr), theirs(lr))


@pytest.fixture
def published(hub: FakeHub, tmp_path: Path) -> FakeHub:
    """The hub with the repository me/x2."""
    build().save_pretrained(tmp_path / "saved")
    hub.repositories["me/x2"] = Repository({path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()})
    return hub


def refused(address: str, **options) -> str:
    with pytest.raises(CheckpointError) as error:
        D2CSR.from_pretrained(address, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_folder_is_loaded(tmp_path: Path) -> None:
    model = build()
    assert model.save_pretrained(tmp_path / "x2") is None
    assert sorted(path.name for path in (tmp_path / "x2").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "x2" / "config.json").read_text())
    assert {key: config[key] for key in model.settings} == model.settings
    for loaded in (
        D2CSR.from_pretrained(tmp_path / "x2"),
        D2CSR.from_pretrained(str(tmp_path / "x2" / "model.safetensors")),
        d2csr.load_model(tmp_path / "x2"),
    ):
        assert isinstance(loaded, D2CSR)
        assert not loaded.training
        assert_equal(loaded, model)


def test_the_mixin_of_huggingface_hub_loads_our_folders(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "x2")
    theirs = TheirD2CSR.from_pretrained(tmp_path / "x2", strict=True)
    assert theirs.settings == build().settings
    assert_equal(theirs, build())


def test_folders_of_the_mixin_of_huggingface_hub_are_loaded(tmp_path: Path) -> None:
    theirs = build(TheirD2CSR)
    theirs.save_pretrained(tmp_path / "x2")
    assert_equal(D2CSR.from_pretrained(tmp_path / "x2"), theirs)


def test_an_ensemble_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ensemble = PathEnsemble(2, 8, {"name": "edsr", "blocks": 1}, paths=2).eval()
    ensemble.save_pretrained(tmp_path)
    loaded = d2csr.load_model(tmp_path)
    assert isinstance(loaded, PathEnsemble)
    assert_equal(loaded, ensemble)
    weights = {name: value.contiguous() for name, value in ensemble.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")  # without its architecture, which config.json holds too
    assert_equal(PathEnsemble.from_pretrained(tmp_path), ensemble)
    assert "the mean of 2 independent networks" in (tmp_path / "README.md").read_text()
    with pytest.raises(CheckpointError, match="holds a PathEnsemble, not a D2CSR"):
        D2CSR.from_pretrained(tmp_path)


def test_a_card_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    build().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_model_is_loaded_from_the_hub(published: FakeHub) -> None:
    for address in ("hf://me/x2", f"hf://me/x2@{COMMIT}", "hf://me/x2@v1/model.safetensors"):
        assert_equal(d2csr.load_model(address), build())
    assert_equal(D2CSR.from_pretrained("me/x2"), build())
    assert_equal(D2CSR.from_pretrained("me/x2", revision="v1"), build())
    downloads = [request for request in published.requests if request.startswith("GET")]
    assert downloads.count("GET /me/x2/resolve/main/model.safetensors") == 1  # the others come from the cache


def test_a_model_of_the_mixin_is_loaded_from_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    theirs = build(TheirD2CSR)
    theirs.save_pretrained(tmp_path / "x2")
    hub.repositories["me/x2"] = Repository({path.name: path.read_bytes() for path in (tmp_path / "x2").iterdir()})
    assert_equal(d2csr.load_model("hf://me/x2"), theirs)


def test_files_of_any_known_form_are_loaded_from_the_hub(hub: FakeHub, golden: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "x2.ckpt", build())
    official = (golden / "net-x2-f16-b1.pkl").read_bytes()
    hub.repositories["me/x2"] = Repository({"a/x2.ckpt": (tmp_path / "x2.ckpt").read_bytes(), "x2.pkl": official})
    assert_equal(d2csr.load_model("hf://me/x2/a/x2.ckpt"), build())
    assert_equal(d2csr.load_model("hf://me/x2/x2.pkl"), d2csr.load_model(golden / "net-x2-f16-b1.pkl"))
    assert read_checkpoint("hf://me/x2/x2.pkl").official


def test_what_the_hub_does_not_have(published: FakeHub) -> None:
    assert refused("me/nothing").startswith("hf://me/nothing: no such repository, or a private one. Check the name")
    assert refused("hf://me/x2@v9") == "hf://me/x2@v9: the repository has no revision v9."
    assert refused("me/x2/x4.ckpt") == (
        "hf://me/x2/x4.ckpt: the repository has no file x4.ckpt. Name one of its files: hf://me/x2/FILE."
    )
    published.repositories["me/x2"].gated = True
    assert refused("me/x2", force_download=True) == (
        f"hf://me/x2: a gated repository. Ask for access at {published.endpoint}/me/x2, then log in by: hf auth login."
    )
    published.failure = 418
    assert "the hub answered 418 (I'm a Teapot)." in refused("me/x2", force_download=True)
    assert "not an address of the hub" in refused("x2")
    assert "no such checkpoint" in refused("./x2")


def test_offline_the_cache_is_used(published: FakeHub, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = refused("me/x2")
    assert before == (
        f"hf://me/x2: {published.endpoint} cannot be reached, and model.safetensors is not in its cache "
        f"({constants.HF_HUB_CACHE}). Connect to the network, or name a local file."
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    d2csr.load_model("hf://me/x2")
    requests = len(published.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_equal(d2csr.load_model("hf://me/x2"), build())
    assert len(published.requests) == requests


def test_a_file_that_is_too_large_is_not_downloaded(published: FakeHub) -> None:
    published.stated_size = transfer.MAX_WEIGHTS + 1
    assert "model.safetensors has 2,147,483,649 bytes; the limit is 2,147,483,648" in refused("me/x2")
    assert not [request for request in published.requests if request.startswith("GET")]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no export of this package"),
        (b"{", "cannot be read"),
        (b"[" * 60_000, "cannot be read"),
        (b"[]", "not a dict of settings"),
        (b" " * 70_000, "above the limit of 65,536"),
        (b'{"_target_": "os.system", "auto_map": {"AutoModel": "evil.Model"}}', "a network that cannot be built"),
        (json.dumps({**TREE, "features": 10**9}).encode(), "a network that cannot be built"),
        (json.dumps({**TREE, "branching": [9] * 8}).encode(), "a network that cannot be built"),
        (json.dumps({**TREE, "body": {"name": "os.system"}}).encode(), "a network that cannot be built"),
        (json.dumps({**TREE, "fusion_features": 4}).encode(), "do not fit its network"),
    ],
)
def test_a_strange_config_of_a_stranger_is_refused(config: bytes | None, message: str, hub: FakeHub) -> None:
    weights = {name: value.contiguous() for name, value in build().state_dict().items()}
    files = {"model.safetensors": save(weights)}  # without the architecture
    if config is not None:
        files["config.json"] = config
    hub.repositories["me/x2"] = Repository(files)
    if config is not None and len(config) > transfer.MAX_CONFIG:
        message = "config.json has 70,000 bytes; the limit is 65,536"
    assert message in refused("me/x2")


def test_a_local_config_is_a_small_regular_file(tmp_path: Path) -> None:
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in build().state_dict().items()}, weights)
    config.write_text(" " * 70_000)
    assert "config.json: has 70,000 bytes, above the limit of 65,536" in refused(str(tmp_path))
    config.unlink()
    os.mkfifo(config)
    assert "config.json: not a regular file" in refused(str(weights))


def test_a_hostile_pickle_of_the_hub_is_not_run(hub: FakeHub, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    hub.repositories["me/x2"] = Repository({"x2.pkl": pickle.dumps({"state_dict_D": Hostile(), "state_dict_C": {}})})
    assert "refused, nothing of it was run" in refused("me/x2/x2.pkl")
    assert not (tmp_path / "it ran").exists()


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    weights = {name: value.contiguous().to(torch.uint8) for name, value in build().state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is no tensor of F16, BF16, F32, F64, with all its bytes"):
        d2csr.load_model(tmp_path)


def test_a_model_is_pushed_and_loaded_again(hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    card = {"author": "Me", "license": "cc-by-4.0"}
    address = build().push_to_hub("me/x2", commit_message="First", model_card_kwargs=card)
    assert address == f"{hub.endpoint}/me/x2/commit/{COMMIT}"
    assert hub.messages == ["First"]
    assert hub.tokens == {"Bearer hf_secret"}
    files = hub.repositories["me/x2"].files
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert b"hf://me/x2" in files["README.md"]
    assert b"license: cc-by-4.0" in files["README.md"]
    assert_equal(d2csr.load_model("hf://me/x2"), build())


def test_a_second_push_keeps_the_card_of_the_repository(hub: FakeHub) -> None:
    hub.repositories["me/x2"] = Repository({"README.md": b"edited there"})
    build().push_to_hub("me/x2", token="hf_other")
    assert hub.repositories["me/x2"].files["README.md"] == b"edited there"
    assert "model.safetensors" in hub.repositories["me/x2"].files
    assert hub.tokens == {"Bearer hf_other"}


def test_a_folder_is_saved_and_pushed_with_its_own_card(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["me/x2"] = Repository({"README.md": b"older"})
    (tmp_path / "x2").mkdir()
    (tmp_path / "x2" / "README.md").write_text("completed by hand")
    build().save_pretrained(tmp_path / "x2", repo_id="me/x2", push_to_hub=True, token="hf_t", commit_message="Second")
    assert hub.repositories["me/x2"].files["README.md"] == b"completed by hand"
    assert hub.messages == ["Second"]
    with pytest.raises(TypeError, match="private: only with push_to_hub=True"):
        build().save_pretrained(tmp_path / "x2", private=True)


def test_a_push_that_fails_is_explained(hub: FakeHub) -> None:
    hub.failure = 403
    with pytest.raises(
        CheckpointError, match=r"hf://me/x2: the hub answered 403 .*log in by: hf auth login\."
    ) as error:
        build().push_to_hub("me/x2", token="hf_t")
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: d2csr.load_model("hf://me/x2"), lambda: build().push_to_hub("me/x2")):
        with pytest.raises(ConfigError, match=r"hf://me/x2: needs huggingface_hub; .* pip install 'd2csr\[hub\]'\.$"):
            call()


PROCESS = """
import sys
import d2csr
assert "huggingface_hub" not in sys.modules
model = d2csr.load_model("hf://me/x2")
assert "huggingface_hub" in sys.modules and "pytorch_lightning" not in sys.modules
print(model.scale)
"""


@pytest.mark.slow
def test_the_environment_names_endpoint_and_cache(published: FakeHub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", PROCESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n"
    assert list((tmp_path / "home" / "hub").glob("models--me--x2/snapshots/*/model.safetensors"))
