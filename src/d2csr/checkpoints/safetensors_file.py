"""Weights as safetensors, with the architecture and ModelSpec metadata.

ModelSpec 1.0.1 (https://github.com/Stability-AI/ModelSpec) is the metadata that image generators and model managers
show. A safetensors file holds tensors and text alone, so that reading it runs no code.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import d2csr
from d2csr.checkpoints.own import plain_dict
from d2csr.checks import require_packages, shown
from d2csr.errors import CheckpointError, ConfigError, DataError, one_line, shown_name
from d2csr.files import require_regular_file
from d2csr.hub.model_card import default_title
from d2csr.hub.transfer import CONFIG, MAX_CONFIG
from d2csr.models import SRNetwork
from d2csr.models.architectures import architecture_of

ARCHITECTURE = "d2csr.architecture"  # key of the metadata: the settings of the model, as JSON
ABOUT = ("title", "author", "license")
_MAX_HEADER = 2 * 2**20  # bytes, about 20,000 tensors; the paper's network has 0.1 MB
_MAX_DIMENSIONS = 8  # convolutions have 4
_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}  # of the types that networks are made of


def write_safetensors(
    path: Path, model: SRNetwork, *, dtype: torch.dtype = torch.float32, about: Mapping[str, str] | None = None
) -> None:
    """Write a model's weights in a type, its architecture, and metadata with some of :data:`ABOUT`; not atomically.

    Raises:
        ConfigError: the package safetensors is missing.
    """
    require_packages("a safetensors file", ["safetensors"], "export")
    from safetensors.torch import save

    weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(weights[name].numpy().tobytes())
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "d2csr",
        "modelspec.implementation": "d2csr",
        "modelspec.title": default_title(model.settings),
        "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.hash_sha256": f"0x{content.hexdigest()}",
        **{f"modelspec.{key}": value for key, value in (about or {}).items() if value},
        "d2csr.version": d2csr.__version__,
        ARCHITECTURE: json.dumps(model.settings),
    }
    path.write_bytes(save(weights, metadata))


def is_safetensors(start: bytes) -> bool:
    """Return whether the first 9 bytes of a file are those of safetensors: the length of a header, then ``{``."""
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 2**32


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of the network, and its state dict in single precision.

    A file without the architecture, as other programs write it, needs a ``config.json`` in its folder.

    Raises:
        CheckpointError: the file is broken or foreign.
        ConfigError: the package safetensors is missing.
    """
    require_packages(f"{path}: a safetensors file", ["safetensors"], "export")
    from safetensors import SafetensorError, safe_open

    try:
        metadata, names = _check_header(path)
        described = isinstance(metadata, dict) and isinstance(metadata.get(ARCHITECTURE), str)
        settings = json.loads(metadata[ARCHITECTURE], object_pairs_hook=_unique) if described else _read_config(path)
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name).float() for name in names}
        return plain_dict("network", settings), weights
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:  # RecursionError is a RuntimeError
        raise CheckpointError(f"{path}: a broken safetensors file ({one_line(error)}).") from None


def _check_header(path: Path) -> tuple[Any, list[str]]:
    """Return the metadata, and the names of the tensors, each checked for its type, its shape and its place.

    The library accepts shapes of 100,000 dimensions, on which torch works for minutes, and types that are no weights.

    Raises:
        ValueError: the header is malformed, or the tensors do not fill the rest of the file one behind the other.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            raise ValueError(f"its header has {length:,} bytes, above the limit of {_MAX_HEADER:,}")
        header = json.loads(file.read(length), object_pairs_hook=_unique)
        left = file.seek(0, 2) - 8 - length
    metadata = header.pop("__metadata__", {})
    places = sorted(_place(name, about) for name, about in header.items())
    if [begin for begin, _ in places] != [0, *(end for _, end in places[:-1])][: len(places)]:
        raise ValueError("its tensors overlap or leave gaps")
    if (places[-1][1] if places else 0) != left:
        raise ValueError("its tensors do not fill the file")
    return metadata, list(header)


def _place(name: str, about: Any) -> tuple[int, int]:
    """Return the first byte of a tensor, and the one behind its last."""
    match about:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if dtype in _BYTES:
            whole = all(type(size) is int and 0 <= size < 2**40 for size in shape)
            if len(shape) <= _MAX_DIMENSIONS and whole and end - begin == math.prod(shape) * _BYTES[dtype]:
                return begin, end
    raise ValueError(f"{shown_name(name)} is no tensor of {', '.join(_BYTES)}, with all its bytes: {shown(about)}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; raise a ValueError for a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name that is there twice")
    return found


def _read_config(path: Path) -> Any:
    """Return the settings of the network in the ``config.json`` beside a file, without its other entries."""
    config = path.with_name(CONFIG)
    if not config.exists():
        raise CheckpointError(
            f"{path}: a safetensors file, but no export of this package: it has no architecture, and its folder no "
            f"{CONFIG}."
        )
    try:
        require_regular_file(config, MAX_CONFIG)
        content = json.loads(config.read_bytes(), object_pairs_hook=_unique)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{config}: cannot be read ({str(error)[:200]}).") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{config}: not a dict of settings.")
    try:
        names = ("architecture", *inspect.signature(architecture_of(content)).parameters)
    except ConfigError as error:
        raise CheckpointError(f"{config}: {error}") from None
    return {name: content[name] for name in names if name in content}
