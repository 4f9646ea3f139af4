"""Export to ONNX, checked with ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2csr.exporting.network import ExportedNetwork, largest_difference, traced
from d2csr.log_file import quiet_loggers
from d2csr.models import SRNetwork

_SIZES = {0: "batch", 2: "height", 3: "width"}


def write_onnx(model: SRNetwork, path: Path, outputs: str, precision: str, metadata: Mapping[str, str]) -> float:
    """Write an ONNX file, run it by ONNX Runtime, and return its largest difference to the model.

    Input ``lr``: N×3×H×W. Outputs: ``sr``, N×3×sH×sW; also ``predictions``, N×K×3×sH×sW, and ``weights``, N×K×sH×sW.
    Their sizes are named ``batch``, ``height`` and ``width``.

    Raises:
        CheckpointError: the body cannot be exported, or the file differs from the model.
    """
    import onnxruntime

    network = ExportedNetwork(model, outputs, precision)
    with quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            traced(network), dynamo=True, input_names=["lr"], output_names=network.names, verbose=False
        )
    assert program is not None
    _name_sizes(program.model.graph)
    if precision == "16":
        _cast_outputs(program.model.graph)
    _clear_traces(program.model.graph)
    program.model.metadata_props.update(metadata)
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(lr: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {"lr": lr.numpy()})]

    return largest_difference(model, outputs, precision, run)


def _name_sizes(graph: Any) -> None:
    """Give the free sizes of the input their names, and replace torch's symbols in the outputs."""
    (lr,) = graph.inputs
    names = {str(lr.shape[axis]): name for axis, name in _SIZES.items()}
    for value in (lr, *graph.outputs):
        value.shape = type(value.shape)([_renamed(size, names) for size in value.shape])


def _clear_traces(graph: Any) -> None:
    """Remove the traces of the source code, which name the folders of this machine."""
    from onnx_ir.traversal import RecursiveGraphIterator

    for node in RecursiveGraphIterator(graph):  # also inside of loops
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _cast_outputs(graph: Any) -> None:
    """Cast single-precision outputs to half: onnxscript computes sums in single precision and leaves them there."""
    import onnx_ir

    for index, value in enumerate(graph.outputs):
        if value.dtype == onnx_ir.DataType.FLOAT16:
            continue
        cast = onnx_ir.node("Cast", [value], {"to": onnx_ir.DataType.FLOAT16})
        graph.append(cast)
        (half,) = cast.outputs
        half.name, value.name = value.name, f"{value.name}_32"
        half.shape, half.dtype = value.shape, onnx_ir.DataType.FLOAT16
        graph.outputs[index] = half


def _renamed(size: Any, names: Mapping[str, str]) -> Any:
    if isinstance(size, int):
        return size
    text = str(size)
    for symbol, name in names.items():
        text = text.replace(symbol, name)
    return text
