from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import d2csr
from d2csr.errors import CheckpointError, ConfigError
from d2csr.exporting import exporter, network
from d2csr.exporting.exporter import Exported
from d2csr.models import D2CSR

SHAPES = [(1, 3, 1, 1), (2, 3, 5, 9), (1, 3, 17, 12)]


@pytest.fixture(scope="module")
def model(golden: Path) -> D2CSR:
    return d2csr.load_model(golden / "net-x4-f16-b1.pkl")


@pytest.fixture(scope="module")
def tiny() -> D2CSR:
    torch.manual_seed(0)
    return D2CSR(2, 8, [2], 8, {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 2}).eval()


@pytest.fixture(scope="module")
def exported(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Exported, Path]]:
    """Return a function that exports the official network of a scale to ONNX once, with all outputs."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def export(scale: int) -> tuple[Exported, Path]:
        path = folder / f"x{scale}.onnx"
        return d2csr.export(d2csr.load_model(golden / f"net-x{scale}-f16-b1.pkl"), path, outputs="all"), path

    return export


def outputs_of(model: D2CSR, lr: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        predictions = model.divergence(lr)
        sr, weights = model.convergence(predictions)
    return [sr.numpy(), predictions.numpy(), weights.numpy()]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_onnx_runtime_computes_the_official_outputs(scale: int, exported, golden_arrays) -> None:
    import onnxruntime

    done, path = exported(scale)
    assert done.difference < 1e-5
    session = onnxruntime.InferenceSession(path)
    arrays = golden_arrays(f"net-x{scale}-f16-b1.npz")
    sr, predictions, weights = session.run(None, {"lr": arrays["lr"].numpy()})
    spread = np.ptp(arrays["sr"].numpy())
    np.testing.assert_allclose(sr, arrays["sr"].numpy(), rtol=0, atol=1e-5 * spread)
    assert predictions.shape[1] == weights.shape[1] == 4
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_onnx_has_named_sizes_and_metadata(model: D2CSR, exported) -> None:
    import onnx
    import onnxruntime

    _, path = exported(4)
    file = onnx.load(path)
    values = {value.name: value.type.tensor_type.shape.dim for value in (*file.graph.input, *file.graph.output)}
    sizes = {name: [size.dim_param or size.dim_value for size in shape] for name, shape in values.items()}
    assert sizes == {
        "lr": ["batch", 3, "height", "width"],
        "sr": ["batch", 3, "4*height", "4*width"],
        "predictions": ["batch", 4, 3, "4*height", "4*width"],
        "weights": ["batch", 4, "4*height", "4*width"],
    }
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["scale"] == "4"
    assert metadata["colour_order"] == "RGB"
    assert metadata["range"] == "[0, 1], output not clamped"
    assert metadata["d2csr_version"] == d2csr.__version__
    assert json.loads(metadata["architecture"]) == model.settings
    assert str(Path(d2csr.__file__).parent).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(path)
    for shape in SHAPES:
        lr = torch.rand(shape)
        for actual, expected in zip(session.run(None, {"lr": lr.numpy()}), outputs_of(model, lr), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_half_precision(tiny: D2CSR, tmp_path: Path) -> None:
    import onnxruntime

    done = d2csr.export(tiny, tmp_path / "m.onnx", precision=16, outputs="all")
    assert 0 < done.difference < 1e-2
    program = d2csr.export(tiny, tmp_path / "m.pt2", precision=16, outputs="all")
    assert 0 < program.difference < 1e-2
    lr = torch.rand(1, 3, 8, 8)
    from_onnx = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"lr": lr.half().numpy()})
    from_program = torch.export.load(tmp_path / "m.pt2").module()(lr.half())
    for actual, other, expected in zip(from_onnx, from_program, outputs_of(tiny, lr), strict=True):
        assert actual.dtype == np.float16
        assert other.dtype == torch.float16
        np.testing.assert_allclose(actual, expected, atol=1e-2)
        np.testing.assert_allclose(other, expected, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("body", ["edsr", "rrdb", "imdn", "nafnet"])
def test_other_bodies(body: str, tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    settings = {"blocks": 1, **({"reduction": 2} if body == "imdn" else {})}
    model = D2CSR(2, 8, [1], 8, {"name": body, **settings}).eval()
    for name, value in model.named_parameters():
        if name.endswith(("beta", "gamma")):  # with 0, a NAFBlock is the identity
            torch.nn.init.normal_(value)
    d2csr.export(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for shape in SHAPES:
        lr = torch.rand(shape)
        (sr,) = session.run(None, {"lr": lr.numpy()})
        np.testing.assert_allclose(sr, outputs_of(model, lr)[0], rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_scripting_does_not_work_as_the_documentation_says(tiny: D2CSR) -> None:
    with pytest.raises(RuntimeError, match="Iterator"):
        torch.jit.script(tiny)


LOAD = """
import sys
sys.modules["d2csr"] = None  # as if it were not installed
import torch
extra = {"d2csr.json": ""}
program = torch.export.load("m.pt2", extra_files=extra)
for number in range(3):
    lr = torch.load(f"lr{number}.pt")
    torch.save(program.module()(lr), f"sr{number}.pt")
print(extra["d2csr.json"])
"""


@pytest.mark.slow
def test_torch_export_runs_where_this_package_is_missing(model: D2CSR, tmp_path: Path) -> None:
    assert d2csr.export(model, tmp_path / "m.pt2", outputs="all").difference < 1e-5
    images = [torch.rand(shape) for shape in SHAPES]
    for number, lr in enumerate(images):
        torch.save(lr, tmp_path / f"lr{number}.pt")
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["scale"] == "4"
    for number, lr in enumerate(images):
        for actual, expected in zip(torch.load(tmp_path / f"sr{number}.pt"), outputs_of(model, lr), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_safetensors_hold_weights_and_modelspec(model: D2CSR, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "m.safetensors"
    about = {"title": "Mine", "author": "Me", "license": "CC-BY-4.0"}
    assert d2csr.export(model, path, about=about).difference == 0
    loaded = d2csr.load_model(path)
    assert loaded.settings == model.settings
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "d2csr"
    assert {key: metadata[f"modelspec.{key}"] for key in about} == about
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # the specification hashes what follows the header
    assert metadata["modelspec.hash_sha256"] == f"0x{hashlib.sha256(content[start:]).hexdigest()}"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("m.pth", {}, "output: must be one of .onnx, .pt2, .safetensors, got '.pth'"),
        ("m.onnx", {"outputs": "leaves"}, "outputs: must be one of sr, all"),
        ("m.onnx", {"precision": 8}, "precision: must be one of 32, 16, got '8'"),
        ("m.safetensors", {"outputs": "all"}, "outputs: safetensors holds weights"),
    ],
)
def test_impossible_settings(tiny: D2CSR, tmp_path: Path, name: str, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        d2csr.export(tiny, tmp_path / name, **settings)
    assert str(error.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(tiny: D2CSR, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(exporter.FORMATS, ".onnx", ("no_such_onnx",))
    with pytest.raises(ConfigError, match=r"needs no_such_onnx; install it by: pip install 'd2csr\[export\]'"):
        d2csr.export(tiny, tmp_path / "m.onnx")


def test_a_file_that_differs_from_the_model_is_not_written(tiny: D2CSR, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(network._BOUNDS, "16", 1e-7)
    with pytest.raises(CheckpointError, match="differs from the model by"):
        d2csr.export(tiny, tmp_path / "m.safetensors", precision=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_body_with_windows_cannot_be_exported_for_all_sizes(tmp_path: Path) -> None:
    model = D2CSR(2, 12, [2], 8, {"name": "swin"})
    with pytest.raises(CheckpointError, match="'swin' cannot be exported for all image sizes"):
        d2csr.export(model, tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []
