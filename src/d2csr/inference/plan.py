"""How to work through one image within a memory budget.

The figures below are what PyTorch holds at the two moments that matter: the last body of the trunk, and one strip. They
were checked against measured peaks (``benchmarks/memory.py``); a tenth is added for what they leave out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from d2csr.errors import ConfigError
from d2csr.inference.trace import strip_bytes, strip_halo, trunk_bytes
from d2csr.models import D2CSR

MODES = ("auto", "strips", "tiles")

_MARGIN = 1.1
_KERNELS = 150 * 10**6  # compiled kernels, reordered weights, threads' stacks
# A longer strip repeats less of its halo, a shorter one stays in the processor's caches; of 4 to 64 rows, 32 were the
# fastest on a CPU (benchmarks/speed.py --strips). An image so small that more of it takes little memory is cut less.
_ROWS = 32
_LITTLE = 64 * 10**6
_TILE_STEP = 16


@dataclass(frozen=True)
class Plan:
    """How one image is computed.

    Attributes:
        length: LR rows of a strip.
        tile: the side of a tile in LR pixels; None if the image is computed as one tile, hence exactly.
        offload: features wait on the CPU and not on the model's device.
    """

    length: int
    tile: int | None = None
    offload: bool = False


@dataclass(frozen=True)
class Footprint:
    """Estimates of the memory of one image on the model's device, in bytes.

    Args:
        model: the model.
        itemsize: bytes of a value in the trunk; the fusion counts at least single precision.
        keep_leaves: the leaves' predictions and weights are kept too.
        copies: of the outputs: 3 for a self-ensemble, which turns a result back and adds it to the sum.
    """

    model: D2CSR
    itemsize: int = 4
    keep_leaves: bool = False
    copies: int = 1

    def trunk(self, height: int, width: int, offload: bool = False) -> int:
        """Estimate the peak of the trunk."""
        return int(_MARGIN * trunk_bytes(self.model, height, width, self.itemsize, offload=offload))

    def waiting(self, height: int, width: int, offload: bool = False) -> int:
        """Estimate the features of all leaves, which are kept while the strips are computed."""
        maps = 0 if offload else self.model.tree.num_leaves * self.model.settings["features"]
        return int(_MARGIN * maps * self.itemsize * height * width)

    def line(self, width: int) -> int:
        """Estimate the peak of tails and fusion for one LR row of a strip."""
        return int(_MARGIN * strip_bytes(self.model, max(4, self.itemsize)) * width)

    def outputs(self, height: int, width: int) -> int:
        """Return the bytes of the result on the CPU; 0 for a model on another device."""
        if next(self.model.parameters()).device.type != "cpu":
            return 0
        channels = 3 + (4 * self.model.tree.num_leaves if self.keep_leaves else 0)
        return self.copies * max(4, self.itemsize) * channels * self.model.scale**2 * height * width

    def least(self, height: int, width: int, offload: bool = False) -> int:
        """Estimate the least memory for an image or a tile: strips of one row."""
        strip = (1 + 2 * strip_halo(self.model)) * self.line(min(height, width))
        return _KERNELS + max(self.trunk(height, width, offload), self.waiting(height, width, offload) + strip)


def make_plan(
    footprint: Footprint, height: int, width: int, budget: int, *, mode: str = "auto", tile: int | None = None
) -> Plan:
    """Choose between strips and tiles, and their size.

    Args:
        footprint: of the model.
        height: of the LR image.
        width: of the LR image.
        budget: bytes to work in.
        mode: ``auto`` takes strips wherever the trunk fits, ``strips`` even where it does not, ``tiles`` never.
        tile: the side of a tile in LR pixels; by default the largest that fits.

    Raises:
        ConfigError: the budget is too small even for the smallest tiles, or there is no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"mode: must be one of {', '.join(MODES)}, got {mode!r}.")
    outputs = footprint.outputs(height, width)
    left = budget - outputs
    on_cpu = next(footprint.model.parameters()).device.type == "cpu"
    for offload in (False,) if on_cpu else (False, True):
        if mode == "strips" or (mode == "auto" and footprint.least(height, width, offload) <= left):
            return Plan(strip_length(footprint, height, width, left, offload), offload=offload)
    side = tile or _largest_tile(footprint, height, width, left, outputs)
    return Plan(strip_length(footprint, min(side, height), min(side, width), left), side)


def strip_length(footprint: Footprint, height: int, width: int, budget: int, offload: bool = False) -> int:
    """Return how many LR rows a strip has: 32, fewer within a small budget, more where they are short."""
    line, halos = footprint.line(min(height, width)), 2 * strip_halo(footprint.model)
    rows = max(_ROWS, _LITTLE // line - halos)
    room = (budget - _KERNELS - footprint.waiting(height, width, offload)) // line - halos
    return min(max(1, min(rows, room)), max(height, width))


def _largest_tile(footprint: Footprint, height: int, width: int, left: int, outputs: int) -> int:
    sides = range(_TILE_STEP, max(height, width) + _TILE_STEP, _TILE_STEP)
    fitting = [side for side in sides if footprint.least(min(side, height), min(side, width)) <= left]
    if fitting:
        return fitting[-1]
    needed = outputs + footprint.least(min(_TILE_STEP, height), min(_TILE_STEP, width))
    raise ConfigError(
        f"memory: an image of {width}×{height} takes {needed / 1e9:.2f} GB even in the smallest tiles "
        f"({outputs / 1e9:.2f} GB of it for the result), and there are {(left + outputs) / 1e9:.2f} GB."
    )


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SHARE = 0.8  # of what is free now: others on the machine grow too, and the estimates are estimates
_UNLIMITED = 2**60  # control groups of version 1 state "no limit" as a figure near 2^63


def budget(memory: str, device: torch.device) -> int:
    """Return the bytes that inference may take, beside what the process holds already.

    Args:
        memory: ``auto``, four fifths of what is free on the device now; or a figure with its unit, such as ``4GB``.
        device: where the model is.

    Raises:
        ConfigError: the text is neither.
    """
    return int(_SHARE * available(device)) if memory == "auto" else parse(memory)


def parse(memory: str) -> int:
    """Return the bytes that a text such as ``4GB``, ``1.5 GiB`` or ``500mb`` means; 1 GB is 10⁹ bytes.

    Raises:
        ConfigError: it is no positive figure with a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", str(memory), flags=re.IGNORECASE)
    figure = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if figure < 1:
        raise ConfigError(f"memory: expected auto, or a figure with its unit such as 4GB or 500MB, got {memory!r}.")
    return figure


def available(device: torch.device) -> int:
    """Return the free memory of a device, in bytes; on the CPU what the machine and the control group leave."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator keeps for reuse counts as taken there, but is at our disposal.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_free_on_machine(), *_free_in_groups(), _UNLIMITED)


def _free_on_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", maxsplit=1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: half of what is built in is a guess on the safe side
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return what each control group around this process leaves; none are listed where there is no limit."""
    try:
        entries = [line.split(":", maxsplit=2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    free = []
    for _, controllers, path in entries:
        if controllers not in ("", "memory"):  # "" is version 2, which has one tree for all controllers
            continue
        top = root / controllers
        group = top / path.lstrip("/")
        free += [_free_in_group(folder) for folder in (group, *group.parents) if folder.is_relative_to(top)]
    return [figure for figure in free if figure is not None]


def _free_in_group(folder: Path) -> int | None:
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit, used = int((folder / limit_name).read_text()), int((folder / used_name).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or the limit is "max"
            continue
        if limit < _UNLIMITED:  # cached files count as used, but make room when asked
            return max(0, limit - used + int(stat.get("inactive_file", 0)))
    return None
