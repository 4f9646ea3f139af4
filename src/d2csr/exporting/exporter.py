"""The function :func:`export`, which chooses the format by the suffix."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import d2csr
from d2csr.checks import one_of, require_packages
from d2csr.errors import CheckpointError, ConfigError
from d2csr.exporting.network import DTYPES, OUTPUTS, ExportedNetwork, largest_difference, traced
from d2csr.files import user_path, write_checkpoint_file
from d2csr.models import SRNetwork

# Suffixes, and the packages that they need in addition to torch.
FORMATS = {
    ".onnx": ("onnx", "onnxscript", "onnxruntime"),
    ".pt2": (),
    ".safetensors": ("safetensors",),
}


@dataclass(frozen=True)
class Exported:
    """An export: file, bytes, and the largest difference to the model, as a share of the largest value."""

    path: Path
    bytes: int
    difference: float


def export(
    model: SRNetwork,
    output: str | Path,
    *,
    outputs: str = "sr",
    precision: str | int = "32",
    about: Mapping[str, str] | None = None,
) -> Exported:
    """Export a model to ONNX, ``torch.export`` or safetensors, and check the file against the model.

    ONNX and ``torch.export`` files take images, N×3×H×W, RGB in [0, 1], of any batch size, height and width. Their
    output is not clamped. A safetensors file holds the weights and the architecture; :func:`d2csr.load_model` reads it.

    Args:
        model: from :func:`d2csr.load_model`.
        output: the file to write, ``.onnx``, ``.pt2`` or ``.safetensors``.
        outputs: ``sr``, or ``all`` for ``sr``, ``predictions`` (N×K×3×sH×sW) and ``weights`` (N×K×sH×sW); not for
            safetensors.
        precision: ``32``, or ``16`` for half precision.
        about: ``title``, ``author`` and ``license`` for the metadata of safetensors.

    Raises:
        ConfigError: an argument is out of its range, or a package is missing.
        CheckpointError: the model cannot be exported, the file cannot be written, or it differs from the model.
    """
    path, precision = user_path(output), str(precision)
    suffix = one_of("output", path.suffix.lower(), tuple(FORMATS))
    one_of("outputs", outputs, OUTPUTS)
    one_of("precision", precision, tuple(DTYPES))
    require_packages(f"output: {suffix}", FORMATS[suffix], "export")
    if suffix == ".safetensors" and outputs != "sr":
        raise ConfigError("outputs: safetensors holds weights, which give all outputs; omit it.")
    with write_checkpoint_file(path) as partial:
        try:
            difference = _write(model, partial, suffix, outputs, precision, about or {})
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    return Exported(path, path.stat().st_size, difference)


def _write(model: SRNetwork, path: Path, suffix: str, outputs: str, precision: str, about: Mapping[str, str]) -> float:
    if suffix == ".onnx":
        from d2csr.exporting.onnx import write_onnx

        return write_onnx(model, path, outputs, precision, _metadata(model))
    if suffix == ".pt2":
        return _write_program(model, path, outputs, precision)
    from d2csr.checkpoints import read_checkpoint
    from d2csr.checkpoints.safetensors_file import write_safetensors

    write_safetensors(path, model, dtype=DTYPES[precision], about=about)
    copy = read_checkpoint(path).model()
    return largest_difference(model, "all", precision, lambda lr: ExportedNetwork(copy, "all", precision)(lr))


def _write_program(model: SRNetwork, path: Path, outputs: str, precision: str) -> float:
    program = traced(ExportedNetwork(model, outputs, precision))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights in the layout channels_last
        torch.export.save(program, file, extra_files={"d2csr.json": json.dumps(_metadata(model))})
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return largest_difference(model, outputs, precision, module)


def _metadata(model: SRNetwork) -> dict[str, str]:
    return {
        "scale": str(model.scale),
        "colour_order": "RGB",
        "range": "[0, 1], output not clamped",
        "d2csr_version": d2csr.__version__,
        "architecture": json.dumps(model.settings),
    }
