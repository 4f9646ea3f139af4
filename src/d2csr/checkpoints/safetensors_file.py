"""Weights as safetensors, with the architecture and ModelSpec metadata.

ModelSpec 1.0.1 (https://github.com/Stability-AI/ModelSpec) is the metadata that image generators and model managers
show. A safetensors file holds tensors and text alone, so that reading it runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import d2csr
from d2csr.errors import CheckpointError, ConfigError
from d2csr.models import SRNetwork

ARCHITECTURE = "d2csr.architecture"  # key of the metadata: the settings of the model, as JSON
ABOUT = ("title", "author", "license")
_MAX_HEADER = 8 * 2**20  # bytes; the paper's network has 0.1 MB


def write_safetensors(
    path: Path, model: SRNetwork, *, dtype: torch.dtype = torch.float32, about: Mapping[str, str] | None = None
) -> None:
    """Write a model's weights, its architecture and its metadata.

    Args:
        path: the file; it is not written atomically.
        model: the model.
        dtype: of the weights in the file.
        about: some of :data:`ABOUT`, for the metadata.
    """
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
        "modelspec.title": f"D2C-SR ×{model.scale}",
        "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.hash_sha256": f"0x{content.hexdigest()}",
        **{f"modelspec.{key}": value for key, value in (about or {}).items() if value},
        "d2csr.version": d2csr.__version__,
        ARCHITECTURE: json.dumps(model.settings),
    }
    path.write_bytes(save(weights, metadata))


def is_safetensors(start: bytes) -> bool:
    """Return whether the first 9 bytes of a file are those of safetensors: the length of a header, then ``{``."""
    return len(start) == 9 and start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _MAX_HEADER


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of the network, and its state dict in single precision.

    Raises:
        CheckpointError: the file is broken or foreign.
        ConfigError: the package safetensors is missing.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ConfigError(f"{path}: needs safetensors; install it by: pip install 'd2csr[export]'.") from None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if ARCHITECTURE not in metadata:
                raise CheckpointError(f"{path}: a safetensors file, but no export of this package.")
            names = list(file.keys())
            weights = {name: file.get_tensor(name).float() for name in names}
        settings = json.loads(metadata[ARCHITECTURE])
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: a broken safetensors file ({str(error)[:200]}).") from None
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: a malformed checkpoint: the architecture is not a dict of settings.")
    return settings, weights
