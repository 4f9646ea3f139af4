"""Memory budgets, and the plan for one image within a budget.

Two moments need the most memory: the last body of the trunk, and one strip. Both are traced without computing anything
(:mod:`d2csr.inference.trace`), and were checked against measured peaks (``benchmarks/memory.py``).
"""

from __future__ import annotations

import os
import re
import sys
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from d2csr.errors import ConfigError
from d2csr.inference.trace import strip_bytes, strip_halo, trunk_bytes
from d2csr.models import SRNetwork

MARGIN = 1.1  # for buffers of the allocator and of single kernels
KERNELS = 120 * 10**6  # compiled kernels, reordered weights, stacks of threads
# A longer strip repeats less of its halo, a shorter one stays in the processor's caches. Of 4 to 64 rows, 32 were the
# fastest on a CPU (benchmarks/speed.py --strips). Strips of a small image may be longer, up to 60 MB.
_ROWS = 32
_SMALL = 60 * 10**6
_TILE_STEP = 16


@dataclass(frozen=True)
class Plan:
    """How one image is computed."""

    length: int  # LR rows of a strip
    tile: int | None = None  # side of a tile in LR pixels; None: the image is one tile, hence exact
    offload: bool = False  # features wait on the CPU and not on the model's device
    on_device: bool = True  # the result stays on the model's device

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what is computed at a time, for those of the LR image."""
        return min(height, self.tile or height), min(width, self.tile or width)


@dataclass(frozen=True)
class Footprint:
    """Estimates of the memory of one image on the model's device, in bytes."""

    model: SRNetwork
    itemsize: int = 4  # bytes of a value in the trunk; the fusion counts at least single precision
    keep_leaves: bool = False  # the leaves' predictions and weights are kept too
    copies: int = 1  # of the outputs: one for each image, and two that a self-ensemble turns back and adds

    def waiting(self, height: int, width: int, offload: bool) -> int:
        """Estimate the features of all leaves, which are kept while the strips are computed."""
        maps = 0 if offload else self.model.tree.num_leaves * self.model.settings["features"]
        return int(MARGIN * maps * self.itemsize * height * width)

    def line(self, width: int) -> int:
        """Estimate the peak of tails and fusion for one LR row of a strip."""
        return int(MARGIN * strip_bytes(self.model, max(4, self.itemsize)) * width)

    def outputs(self, height: int, width: int) -> int:
        """Return the bytes of the results."""
        channels = 3 + (4 * self.model.tree.num_leaves if self.keep_leaves else 0)
        return self.copies * max(4, self.itemsize) * channels * self.model.scale**2 * height * width

    def peak(self, height: int, width: int, plan: Plan) -> int:
        """Estimate the peak of an image that is computed by a plan, with the results on the model's device."""
        tall, wide = plan.size(height, width)
        strip = (plan.length + 2 * strip_halo(self.model)) * self.line(min(tall, wide))
        trunk = int(MARGIN * trunk_bytes(self.model, tall, wide, self.itemsize, offload=plan.offload))
        work = max(trunk, self.waiting(tall, wide, plan.offload) + strip)
        return KERNELS + plan.on_device * self.outputs(height, width) + work


def make_plan(
    footprint: Footprint, height: int, width: int, budget: int, *, mode: str = "auto", tile: int | None = None
) -> Plan:
    """Choose between strips and tiles, and their size, for an LR image and a budget in bytes.

    Mode ``auto`` uses strips if the trunk fits, ``strips`` always, ``tiles`` never. Without ``tile``, its side in LR
    pixels, tiles are the largest that fit. On a GPU, results that do not fit beside the work, and those of tiles, are
    collected on the CPU.

    Raises:
        ConfigError: the budget is too small even for the smallest tiles.
    """
    on_cpu = next(footprint.model.parameters()).device.type == "cpu"
    whole = [Plan(1)] if on_cpu else [Plan(1), Plan(1, on_device=False), Plan(1, offload=True, on_device=False)]
    plan = None
    if mode == "strips":  # also for a body whose memory is unknown
        plan = Plan(1, on_device=on_cpu or footprint.outputs(height, width) <= budget // 2)
    elif mode == "auto":
        plan = next((plan for plan in whole if footprint.peak(height, width, plan) <= budget), None)
    if plan is None:
        plan = Plan(1, tile or _largest_tile(footprint, height, width, budget, on_cpu), on_device=on_cpu)
    # Strips of 32 LR rows, fewer within a small budget, more if the rows are short.
    tall, wide = plan.size(height, width)
    line, halos = footprint.line(min(tall, wide)), 2 * strip_halo(footprint.model)
    rows = max(_ROWS, _SMALL // line - halos)
    results = plan.on_device * footprint.outputs(height, width)
    room = (budget - KERNELS - results - footprint.waiting(tall, wide, plan.offload)) // line - halos
    return replace(plan, length=min(max(1, min(rows, room)), max(tall, wide)))


def _largest_tile(footprint: Footprint, height: int, width: int, budget: int, on_device: bool) -> int:
    def needed(side: int) -> int:
        return footprint.peak(height, width, Plan(1, side, on_device=on_device))

    sides = range(_TILE_STEP, max(height, width) + _TILE_STEP, _TILE_STEP)
    fitting = bisect_right(sides, budget, key=needed)
    if fitting:
        return sides[fitting - 1]
    raise ConfigError(
        f"memory: an image of {width}×{height} needs {needed(_TILE_STEP) / 1e9:.2f} GB even in the smallest tiles, but "
        f"{budget / 1e9:.2f} GB are available. Increase memory or use a smaller image."
    )


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SHARE = 0.8  # of the free memory: other processes may grow, and the estimates are not exact
_UNLIMITED = 2**60  # control groups of version 1 state "no limit" as a number near 2^63
# Limit and use of a group, by the controllers of its tree: version 2 has one for all controllers.
_GROUP_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def budget(memory: str, device: torch.device) -> int:
    """Return the bytes that inference may use in addition, by :func:`parse`; ``auto`` is 4/5 of the free memory."""
    return int(_SHARE * available(device)) if memory == "auto" else parse(memory)


def parse(memory: str) -> int:
    """Return the bytes of a size such as ``4GB``, ``1.5 GiB`` or ``500mb``; 1 GB is 10⁹ bytes.

    Raises:
        ConfigError: it is not a positive number with a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", str(memory), flags=re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ConfigError(f"memory: must be auto, or a number with its unit such as 4GB or 500MB, got {memory!r}.")
    return size


def available(device: torch.device) -> int:
    """Return the free bytes of a device; on the CPU, within the limits of the machine and its control groups."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + _kept_for_reuse(device)
    return min([_free_on_machine(), *_free_in_groups()])


def _kept_for_reuse(device: torch.device) -> int:
    """Return the bytes that torch's allocator keeps on a GPU for reuse: these count as used there, but are available.

    Those of CUDA graphs, in pools of their own, are not: each replay overwrites them.
    """
    if "torch._inductor.cudagraph_trees" not in sys.modules:  # no graphs: no list of segments, which takes longer
        return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == index and tuple(segment["segment_pool_id"]) == (0, 0)
    )


def _free_on_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", maxsplit=1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: half of the memory, a safe estimate
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return the free bytes of each control group with a limit that this process is in."""
    try:
        entries = [line.split(":", maxsplit=2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    free = []
    for _, controllers, path in entries:
        if controllers not in _GROUP_FILES:
            continue
        group = root / controllers / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # no such file, as above the top, or the limit is "max"
                limit, used = (int((folder / name).read_text()) for name in _GROUP_FILES[controllers])
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                if limit < _UNLIMITED:  # cached files count as used, but are dropped on demand
                    free.append(max(0, limit - used + int(stat.get("inactive_file", 0))))
    return free
