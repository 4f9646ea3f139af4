from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel import MAIN_REGISTRY, ArchRegistry, ModelLoader, ModelTiling, UnsupportedModelError
from torch import nn

import d2csr
from d2csr.checkpoints import save_model
from d2csr.checkpoints.inferred_settings import infer_settings
from d2csr.checkpoints.safetensors_file import write_safetensors
from d2csr.errors import CheckpointError
from d2csr.integrations.spandrel import install
from d2csr.models import D2CSR, SRNetwork, build_network, register_body

COMFYUI = Path(__file__).parents[2] / "integrations" / "comfyui" / "d2csr"


@pytest.fixture
def loader() -> ModelLoader:
    """spandrel's loader with all of its own architectures and this one."""
    registry = MAIN_REGISTRY.copy()
    install(registry)
    return ModelLoader(registry=registry)


def assert_same_output(descriptor, model: SRNetwork) -> None:
    lr = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(lr).clamp(0, 1)
        torch.testing.assert_close(descriptor.eval()(lr), expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.01


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_official_weights_after_conversion(scale: int, golden: Path, loader: ModelLoader, tmp_path: Path) -> None:
    model = d2csr.load_model(golden / f"net-x{scale}-f16-b1.pkl")
    write_safetensors(tmp_path / "a.safetensors", model)
    save_model(tmp_path / "a.ckpt", model)
    for name in ("a.safetensors", "a.ckpt"):
        descriptor = loader.load_from_file(tmp_path / name)
        assert (descriptor.architecture.id, descriptor.scale, descriptor.purpose) == ("D2CSR", scale, "SR")
        assert descriptor.tiling is ModelTiling.DISCOURAGED
        assert_same_output(descriptor, model)


TREE = {"scale": 2, "features": 12, "branching": [2], "fusion_features": 8}


PATHS = {"architecture": "ensemble", "scale": 2, "features": 12}


def random_weights(settings: dict[str, Any]) -> SRNetwork:
    """A network whose weights are all random: NAFNet's blocks begin as the identity."""
    model = build_network(settings).eval()
    torch.manual_seed(0)  # not before: the initial weights take other numbers in another version of torch
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn_like(parameter) * 0.5 * fan_in**-0.5)
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {**TREE, "scale": 4, "branching": [2, 2], "body": {"name": "rcab", "blocks": 2, "reduction": 4}},
        {**TREE, "scale": 3, "branching": [3], "body": {"name": "rcab", "groups": 1, "blocks": 3, "reduction": 5}},
        {**TREE, "scale": 8, "branching": [1, 2, 2], "body": {"name": "edsr", "blocks": 2}},
        {**TREE, "body": {"name": "rrdb", "blocks": 2, "growth": 5}},
        {**TREE, "body": {"name": "imdn", "blocks": 3, "reduction": 4}},
        {**TREE, "body": {"name": "nafnet", "blocks": 3}},
        {**PATHS, "paths": 1, "body": {"name": "edsr", "blocks": 2, "residual_scale": 1.0}},
        {**PATHS, "scale": 3, "paths": 3, "body": {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 4}},
        {**TREE, "body": {"name": "swin", "groups": 2, "layers": 3, "heads": 3, "window": 5, "mlp_ratio": 1.5}},
        {**TREE, "body": {"name": "swin", "groups": 1, "layers": 1, "heads": 1, "window": 2, "mlp_ratio": 0.6}},
    ],
    ids=lambda settings: f"{settings['body']['name']} {settings.get('branching', 'paths')}",
)
def test_every_body_and_tree_is_loaded_from_its_weights_alone(
    settings: dict[str, Any], loader: ModelLoader, tmp_path: Path
) -> None:
    model = random_weights(settings)
    write_safetensors(tmp_path / "a.safetensors", model)
    descriptor = loader.load_from_file(tmp_path / "a.safetensors")
    assert_same_output(descriptor, model)
    if settings["body"].get("mlp_ratio") == 0.6:  # its hidden layer has int(0.6 · 12) = 7 channels
        assert descriptor.model.settings["body"]["mlp_ratio"] == pytest.approx(7 / 12, abs=0.05)
    elif settings["body"].get("reduction") == 5:  # as 6, it gives 2 channels
        assert descriptor.model.settings["body"]["reduction"] == 6
    else:
        assert descriptor.model.settings == model.settings


def test_the_residual_scale_is_assumed_to_be_the_default() -> None:
    for body, default in (("edsr", 1.0), ("rrdb", 0.2)):
        model = D2CSR(**TREE, body={"name": body, "blocks": 1, "residual_scale": 0.5})
        assert infer_settings(model.state_dict())["body"]["residual_scale"] == default


def test_a_body_that_cannot_be_inferred_is_refused() -> None:
    @register_body("flat")
    class Flat(nn.Conv2d):
        def __init__(self, features: int) -> None:
            super().__init__(features, features, 1)

    with pytest.raises(CheckpointError, match="of this body cannot be inferred"):
        infer_settings(D2CSR(**TREE, body="flat").state_dict())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("divergence.tails.1.0.0.weight", None),  # missing
        ("divergence.head.weight", (0, 3, 3, 3)),
        ("divergence.bodies.1.0.residual.0.residual.3.attention.1.weight", (0, 12, 1, 1)),
        ("divergence.bodies.99999999.0.weight", (1,)),  # a tree of 9^8 leaves
    ],
)
def test_malformed_weights_are_refused(name: str, shape: tuple[int, ...] | None, loader: ModelLoader) -> None:
    weights = D2CSR(**TREE, body={"name": "rcab", "groups": 1, "blocks": 1, "reduction": 4}).state_dict()
    weights.pop(name, None)
    if name == "divergence.tails.1.0.0.weight":
        weights.pop("divergence.tails.2.0.0.weight")
    if shape is not None:
        weights[name] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match="cannot be"):
        loader.load_from_state_dict(weights)


@pytest.mark.slow
def test_a_training_checkpoint_is_loaded(demo_run: Path, loader: ModelLoader) -> None:
    path = demo_run / "checkpoints" / "best.ckpt"
    assert_same_output(loader.load_from_file(path), d2csr.load_model(path))


def test_a_missing_spandrel_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.delitem(sys.modules, "d2csr.integrations.spandrel")
    with pytest.raises(ImportError, match=r"needs spandrel; install it by: pip install spandrel\.$"):
        importlib.import_module("d2csr.integrations.spandrel")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("divergence.head.weight", torch.zeros(())),
        ("divergence.head.weight", torch.zeros(0, 3)),
        ("divergence.bodies.99999999999.0.weight", torch.zeros(1)),
        ("divergence.bodies." + "1" * 5000 + ".0.weight", torch.zeros(1)),
        ("divergence.tails.22.0." + "9" * 5000 + ".weight", torch.zeros(1)),
        ("convergence.layers.0.weight", torch.zeros(10**6, 1, 1, 1)),
        ("divergence.head.weight", torch.full((8, 3, 3, 3), torch.nan)),
    ],
)
def test_strange_weights_are_refused(name: str, value: torch.Tensor, loader: ModelLoader) -> None:
    weights = D2CSR(2, 8, [2, 2], 8, {"name": "edsr", "blocks": 1}).state_dict()
    with pytest.raises(CheckpointError) as error:
        loader.load_from_state_dict({**weights, name: value})
    assert len(str(error.value)) < 1000


def test_models_of_others_are_still_recognised(loader: ModelLoader) -> None:
    from spandrel.architectures.RCAN import RCAN

    theirs = RCAN(scale=2, n_feats=16, n_resgroups=1, n_resblocks=1)
    assert loader.load_from_state_dict(theirs.state_dict()).architecture.id == "RCAN"
    with pytest.raises(UnsupportedModelError):
        loader.load_from_state_dict({"divergence.head.weight": torch.zeros(1)})


def test_install_twice() -> None:
    registry = ArchRegistry()
    install(registry)
    install(registry)
    assert len(list(registry)) == 1


def test_the_node_of_comfyui_registers_the_architecture(monkeypatch) -> None:
    registry = MAIN_REGISTRY.copy()
    monkeypatch.setattr(install, "__defaults__", (registry,))
    node = runpy.run_path(str(COMFYUI / "__init__.py"))
    assert "D2CSR" in registry
    assert node["NODE_CLASS_MAPPINGS"] == {}
