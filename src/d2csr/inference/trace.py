"""Memory and receptive fields of a model, traced on a copy without weights.

The copy is built from ``model.settings`` on PyTorch's meta device, whose tensors have a shape but no data. No layer
class is named here, so every registered body is covered. Results are cached by the settings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast
from weakref import finalize

import torch
from torch import Tensor, nn

from d2csr.errors import ConfigError
from d2csr.models import SRNetwork
from d2csr.models.cost import on_meta
from d2csr.torch_internals import DispatchMode

_SIDE = 64  # of the square maps on which operations are traced
# Operations that use values of other pixels at a distance that their arguments do not show.
_UNBOUNDED = (
    *("bmm", "baddbmm", "_scaled_dot_product", "roll", "flip"),
    *("im2col", "index", "gather", "grid_sampler", "_fft"),
)
_POOLING = ("mean", "adaptive_avg_pool", "adaptive_max_pool", "var", "std", "sum", "amax", "max")

_Part = Callable[[Tensor], Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Key = tuple[str, type[nn.Module]]  # settings, and the class of the body, since a name may be registered anew


class PeakMemory(DispatchMode):
    """Counts the bytes of the storages that are alive, and their maximum; a float of any type has ``itemsize``.

    Storages that were made before are not counted.
    """

    def __init__(self, itemsize: int) -> None:
        super().__init__()
        self.itemsize = itemsize
        self.alive: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)  # PyTorch keeps this object as long as the storage
        if key in self.alive:
            return
        size = storage.nbytes()
        if tensor.is_floating_point():
            size = size // tensor.itemsize * self.itemsize
        self.alive[key] = size
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)


class _Operations(DispatchMode):
    """Records the name, the arguments and the result of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen.append((func.overloadpacket.__name__, args, result))
        return result


def _cached(function: _Function) -> _Function:
    """Call a function with the copy of a model on the meta device, and cache its results by the model's settings."""

    @lru_cache(maxsize=1024)
    @torch.inference_mode(False)  # in which a trace would not see inside composite operations
    @torch.no_grad()
    def traced(key: _Key, *args: Any, **kwargs: Any) -> Any:
        return function(_meta_model(key), *args, **kwargs)

    @wraps(function)
    def wrapped(model: SRNetwork, /, *args: Any, **kwargs: Any) -> Any:
        key = json.dumps(model.settings), type(model.divergence.bodies[model.tree.leaves[0]])
        return traced(key, *args, **kwargs)

    return cast(_Function, wrapped)


@lru_cache(maxsize=8)
def _meta_model(key: _Key) -> SRNetwork:
    """Build a model on the meta device; all bodies but the last leaf's are one operation, which makes a new map.

    The peak memory stays the same, since most maps are alive while the last leaf's body runs.
    """
    model = on_meta(json.loads(key[0])).eval()
    for node in model.tree.nodes[:-1]:
        model.divergence.bodies[node] = nn.ReLU()
    return model


@_cached
def trunk_bytes(model: SRNetwork, height: int, width: int, itemsize: int = 4, *, offload: bool = False) -> int:
    """Return the peak memory of the trunk in bytes for an LR image: all maps that are alive in the last body.

    With ``offload``, the leaves' features are moved away as soon as they are computed.

    Raises:
        ConfigError: the body cannot run on the meta device.
    """
    memory = PeakMemory(itemsize)
    waiting = []
    try:
        with memory:
            lr = torch.empty(1, 3, height, width, device="meta").contiguous(memory_format=torch.channels_last)
            for _, features in model.divergence.trunk(lr):
                if not offload:
                    waiting.append(features)
                del features
    except RuntimeError as error:  # NotImplementedError is one
        name = model.settings["body"]["name"]
        raise ConfigError(
            f"body: {name!r} cannot run on the meta device at {width}×{height}, so its memory is unknown ({error}). "
            "Avoid operations that need a tensor's values, such as item(), or set mode=strips."
        ) from error
    return memory.peak


@_cached
def strip_bytes(model: SRNetwork, itemsize: int = 4) -> int:
    """Return the peak memory of tails and fusion in bytes per LR pixel of a strip, without the leaves' features."""
    memory = PeakMemory(itemsize)
    features = _maps(model.settings["features"])
    with memory:
        predictions = [model.divergence.reconstruct(leaf, features) for leaf in model.tree.leaves]
        model.convergence(torch.stack(predictions, dim=1))
    return math.ceil(memory.peak / _SIDE**2)


@_cached
def strip_halo(model: SRNetwork) -> int:
    """Return how many LR rows of features beyond its own rows an output row of a strip depends on; 3 for a tree.

    Zero padding at the inner ends of a strip spreads no further, so it is cut off with the halo.
    """

    def tail_and_fusion(features: Tensor) -> None:
        prediction = model.divergence.reconstruct(model.tree.leaves[0], features)
        model.convergence(torch.stack([prediction] * model.tree.num_leaves, dim=1))

    return math.ceil(_traced_radius(tail_and_fusion, model.settings["features"]))


@_cached
def trunk_radius(model: SRNetwork) -> float:
    """Return the radius of the trunk's receptive field in LR pixels, without averages over the whole image.

    A body may state its ``receptive_field``. Otherwise the kernels of its 2-D convolutions and poolings are added. The
    radius is infinite if the body also uses attention, shifts, gathering or Fourier transforms.
    """
    network, features, leaf = model.divergence, model.settings["features"], model.tree.leaves[-1]
    body = network.bodies[leaf]
    stated = getattr(body, "receptive_field", None)
    body_radius = _traced_radius(body, features) if stated is None else stated // 2
    head, *skips = network.around_bodies(leaf)
    around = _traced_radius(head, 3) + sum(_traced_radius(skip, features) for skip in skips)
    radius = around + model.tree.depth * body_radius
    return radius if math.isinf(radius) else math.ceil(radius)


@_cached
def pools_globally(model: SRNetwork) -> bool:
    """Return whether the bodies use statistics of the whole image, as channel attention does."""
    body = model.divergence.bodies[model.tree.leaves[-1]]
    return any(_pools_globally(*operation) for operation in _operations(body, model.settings["features"]))


def _pools_globally(name: str, args: Any, result: Any) -> bool:
    x, pooled = (args or (None,))[0], result[0] if isinstance(result, tuple) else result
    if not name.strip("_").startswith(_POOLING) or not isinstance(x, Tensor):
        return False
    return x.ndim == 4 and pooled.numel() <= x.shape[0] * x.shape[1] < x.numel()


def _traced_radius(part: _Part, channels: int) -> float:
    """Add up the radii of 2-D convolutions and poolings, in pixels of a map with ``_SIDE`` rows."""
    radius = 0.0
    for name, args, result in _operations(part, channels):
        if name.startswith(_UNBOUNDED):
            return math.inf
        if name == "convolution" and args[1].ndim == 4:
            _, weight, _, _, _, dilation, transposed = args[:7]
            rows = (result if transposed else args[0]).shape[-2]
            radius += _SIDE / rows * dilation[0] * (weight.shape[2] // 2)
        elif name.startswith(("max_pool2d", "avg_pool2d")):
            radius += _SIDE / args[0].shape[-2] * (args[1][0] // 2)
    return radius


def _operations(part: _Part, channels: int) -> list[tuple[str, Any, Any]]:
    with _Operations() as operations:
        part(_maps(channels))
    return operations.seen


def _maps(channels: int) -> Tensor:
    maps = torch.zeros(1, channels, _SIDE, _SIDE, device="meta")
    return maps.contiguous(memory_format=torch.channels_last)
