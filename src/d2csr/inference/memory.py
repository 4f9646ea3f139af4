"""How much memory there is to work in."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from d2csr.errors import ConfigError

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
