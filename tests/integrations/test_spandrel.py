from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from spandrel import MAIN_REGISTRY, ArchRegistry, ModelLoader, ModelTiling, UnsupportedModelError

import d2csr
from d2csr.checkpoints import save_model
from d2csr.checkpoints.safetensors_file import write_safetensors
from d2csr.errors import CheckpointError
from d2csr.integrations.spandrel import infer_settings, install
from d2csr.models import D2CSR

COMFYUI = Path(__file__).parents[2] / "integrations" / "comfyui" / "d2csr"


@pytest.fixture
def loader() -> ModelLoader:
    """spandrel's loader with all of its own architectures and this one."""
    registry = MAIN_REGISTRY.copy()
    install(registry)
    return ModelLoader(registry=registry)


def assert_same_output(descriptor, model: D2CSR) -> None:
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


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 4, "features": 16, "branching": [2, 2], "fusion_features": 12, "body": {"name": "rcab"}},
        {"scale": 3, "features": 12, "branching": [3], "fusion_features": 8, "body": {"name": "rcab", "reduction": 5}},
        {
            "scale": 8,
            "features": 8,
            "branching": [1, 2, 2],
            "fusion_features": 8,
            "body": {"name": "edsr", "blocks": 2},
        },
    ],
)
def test_settings_are_inferred_from_shapes(settings: dict) -> None:
    model = D2CSR(**settings)
    inferred = D2CSR(**infer_settings(model.state_dict()))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in inferred.state_dict().items()} == shapes
    if settings["body"]["name"] == "edsr":
        assert inferred.settings == model.settings


def test_a_body_that_cannot_be_inferred_is_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot be inferred"):
        infer_settings(D2CSR(2, 8, [2], 8, "nafnet").state_dict())


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
