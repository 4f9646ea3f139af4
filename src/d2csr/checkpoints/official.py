"""The official implementation's checkpoints, and how they map to ours.

They are pickles of ``{"state_dict_D": {...}, "state_dict_C": {...}}``. Facts of the format
(https://github.com/megvii-research/D2C-SR): values are float32 arrays, convolution biases have shape 1×C×1×1, channels
are in the order BGR, and the shifts ``sub_mean`` and ``add_mean`` are learned, so they are taken as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2csr.checkpoints.official_pickle import load_arrays
from d2csr.errors import CheckpointError
from d2csr.models import Tree

Arrays = dict[str, np.ndarray]

# Two skips a leaf, numbered through: leaf 11 has res_conv1 and res_conv2, leaf 12 has res_conv3 and res_conv4 ...
_SKIPS = {2 * i + j + 1: f"{leaf}.{j}" for i, leaf in enumerate(Tree().leaves) for j in range(2)}
_RENAMINGS = (
    (r"^sub_mean\.", "divergence.input_shift."),
    (r"^add_mean\.", "divergence.output_shift."),
    (r"^head\.0\.", "divergence.head."),
    (r"^body(\d+)\.", r"divergence.bodies.\1."),
    (r"^tail(\d+)\.", r"divergence.tails.\1."),
    (r"^res_conv(\d+)\.", lambda match: f"divergence.skips.{_SKIPS[int(match[1])]}."),
    (r"^fusion_final\.(\d)\.conv\.", r"convergence.layers.\1."),
    (r"\.body\.", ".residual."),
    (r"\.conv_du\.0\.", ".attention.1."),
    (r"\.conv_du\.2\.", ".attention.3."),
)


def read_official(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read an official pickle.

    Returns:
        The settings of the :class:`d2csr.models.D2CSR` that it belongs to, read off its weights, and that model's state
        dict, in RGB order.

    Raises:
        CheckpointError: the file holds anything but the arrays of an official checkpoint.
    """
    divergence, convergence = _parts(path)
    try:
        settings = _settings(divergence, convergence)
        weights = {_our_name(name): _tensor(name, array) for name, array in (divergence | convergence).items()}
        _to_rgb(weights)
    except (KeyError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not the weights of an official D2C-SR network ({error!r}).") from None
    return settings, weights


def _parts(path: str | Path) -> tuple[Arrays, Arrays]:
    content = load_arrays(path)
    parts = [content.get(key) if isinstance(content, dict) else None for key in ("state_dict_D", "state_dict_C")]
    for part in parts:
        if not isinstance(part, dict) or not all(
            isinstance(name, str) and isinstance(array, np.ndarray) and array.dtype.kind == "f"
            for name, array in part.items()
        ):
            raise CheckpointError(f"{path}: not an official D2C-SR checkpoint: it lacks state_dict_D and state_dict_C.")
    return parts[0], parts[1]  # type: ignore[return-value]


def _settings(divergence: Arrays, convergence: Arrays) -> dict[str, Any]:
    """Deduce the architecture. The official tree is always the paper's."""
    features = divergence["head.0.weight"].shape[0]
    attention = divergence["body1.0.body.0.body.3.conv_du.0.weight"].shape[0]
    upsampler = [name for name in divergence if re.fullmatch(r"tail11\.0\.\d+\.weight", name)]
    factor_squared = divergence["tail11.0.0.weight"].shape[0] // features
    return {
        "scale": 3 if factor_squared == 9 else 2 ** len(upsampler),
        "features": features,
        "branching": [2, 2],
        "fusion_features": convergence["fusion_final.0.conv.weight"].shape[0],
        "body": {
            "name": "rcab",
            "groups": _highest(divergence, r"body1\.(\d+)\.body\.") + 1,
            "blocks": _highest(divergence, r"body1\.0\.body\.(\d+)\.body\.") + 1,
            "reduction": features // attention,
        },
    }


def _highest(arrays: Arrays, pattern: str) -> int:
    return max(int(match[1]) for name in arrays if (match := re.match(pattern, name)))


def _our_name(name: str) -> str:
    for pattern, replacement in _RENAMINGS:
        name = re.sub(pattern, replacement, name)
    return name


def _tensor(name: str, array: np.ndarray) -> Tensor:
    if name.endswith(".bias"):
        array = array.reshape(-1)
    return torch.from_numpy(array.astype(np.float32))


def _to_rgb(weights: dict[str, Tensor]) -> None:
    """Permute, in place, what meets an image: the result on RGB is the official result on BGR."""
    weights["divergence.input_shift.weight"] = weights["divergence.input_shift.weight"].flip(1)
    for kind in ("weight", "bias"):
        weights[f"divergence.output_shift.{kind}"] = weights[f"divergence.output_shift.{kind}"].flip(0)
    first = weights["convergence.layers.0.weight"]
    weights["convergence.layers.0.weight"] = first.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
