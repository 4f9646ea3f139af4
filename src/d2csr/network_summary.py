"""Summary of a network: parameters and FLOPs by part, receptive field, memory of training and inference."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from d2csr.checks import whole_number
from d2csr.errors import ConfigError
from d2csr.inference.plan import Footprint, Plan, make_plan
from d2csr.inference.trace import pools_globally, strip_halo, trunk_radius
from d2csr.models import SRNetwork
from d2csr.models.cost import Cost, cost_by_part
from d2csr.training.step_memory import StepMemory

_MOST_PIXELS = 2**16  # of a side
_UNLIMITED = 2**62  # bytes


@dataclass(frozen=True)
class InferenceMemory:
    """Estimated bytes for one image in float32: with strips of ``rows`` LR rows, and at least, with strips of one."""

    rows: int
    peak: int
    least: int


@dataclass(frozen=True)
class NetworkSummary:
    """What :func:`summarize` finds out, for one image."""

    settings: dict[str, Any]  #: of the network
    parts: dict[str, Cost]  #: by part
    lr_size: tuple[int, int]  #: width and height of the LR image, in pixels
    sr_size: tuple[int, int]  #: width and height of the SR image, in pixels
    #: Side in LR pixels of the square that an SR pixel depends on through convolutions; None if it is not bounded.
    receptive_field: int | None
    whole_image: bool  #: the bodies use statistics of the whole image, such as channel attention
    inference: InferenceMemory
    training: StepMemory | None = None  #: if it is known

    @property
    def total(self) -> Cost:
        """The cost of the whole network."""
        parts = self.parts.values()
        return Cost(sum(part.parameters for part in parts), sum(part.flops for part in parts))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; sizes are bytes."""
        values = asdict(self)
        values["total"] = asdict(self.total)
        for cost in (*values["parts"].values(), values["total"]):
            cost["macs"] = cost["flops"] // 2
        if self.training is not None:
            values["training"]["peak"] = self.training.peak
        return values


def summarize(network: SRNetwork, width: int = 1280, height: int = 720) -> NetworkSummary:
    """Summarize a network on the meta device, for an SR image; a size that is no multiple of the scale is rounded up.

    Nothing is computed: shapes are traced.

    Raises:
        ConfigError: a size is impossible, or the body cannot run on the meta device.
    """
    for index, size in enumerate((width, height)):
        whole_number(f"output_size.{index}", size, 1, _MOST_PIXELS)
    columns, rows = (math.ceil(size / network.scale) for size in (width, height))
    footprint = Footprint(network)
    radius = trunk_radius(network) + strip_halo(network)
    plan = make_plan(footprint, rows, columns, _UNLIMITED)
    least = footprint.peak(rows, columns, Plan(1))
    try:
        parts = cost_by_part(network, (1, 3, rows, columns))
    except RuntimeError as error:
        name = network.settings["body"]["name"]
        raise ConfigError(
            f"body: {name!r} cannot run on the meta device, so its FLOPs are unknown ({error})."
        ) from error
    return NetworkSummary(
        settings=network.settings,
        parts=parts,
        lr_size=(columns, rows),
        sr_size=(columns * network.scale, rows * network.scale),
        receptive_field=None if math.isinf(radius) else 2 * int(radius) + 1,
        whole_image=pools_globally(network),
        inference=InferenceMemory(plan.length, footprint.peak(rows, columns, plan), least),
    )


def summary_lines(summary: NetworkSummary) -> list[str]:
    """Return the table of a summary, without the memory of a training."""
    (width, height), (sr_width, sr_height) = summary.lr_size, summary.sr_size
    rows = [("part", "parameters", "GFLOP", "GMAC")]
    for name, cost in {**summary.parts, "total": summary.total}.items():
        rows.append((name, f"{cost.parameters:,}", f"{cost.flops / 1e9:,.2f}", f"{cost.macs / 1e9:,.2f}"))
    side, memory = summary.receptive_field, summary.inference
    field = "not bounded" if side is None else f"{side} × {side} LR pixels"
    if summary.whole_image:
        field = f"the whole image, by global pooling; without it {field}"
    return [
        _title(summary.settings),
        f"LR {width}×{height} to SR {sr_width}×{sr_height}",
        "",
        *(f"{name:<15}{parameters:>14}{flops:>12}{macs:>12}" for name, parameters, flops, macs in rows),
        "",
        f"receptive field    {field}",
        f"inference memory   {_gb(memory.peak)} in strips of {memory.rows} LR rows, at least {_gb(memory.least)}",
    ]


def training_line(training: StepMemory, batch_size: int, patch_size: int, optimization: str) -> str:
    """Return the row of the memory of a training."""
    parts = f"weights {_gb(training.weights)}, optimizer {_gb(training.optimizer)}, step {_gb(training.step)}"
    return (
        f"training memory    {_gb(training.peak)} with {batch_size} LR patches of {patch_size}×{patch_size}, "
        f"{optimization}, float32 ({parts})"
    )


def _title(settings: dict[str, Any]) -> str:
    body = settings["body"]
    details = "".join(f" {name}={value}" for name, value in body.items() if name != "name")
    shape = f"{settings['paths']} path(s)" if "paths" in settings else f"tree {settings['branching']}"
    fusion = f", fusion_features={settings['fusion_features']}" if "fusion_features" in settings else ""
    return f"×{settings['scale']}, {shape}, features={settings['features']}{fusion}, body {body['name']}{details}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"
