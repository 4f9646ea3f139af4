"""Distribution of the tests over the worker processes of pytest-xdist."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

MOST_WORKERS = 4  # the tests of the demo run in one of them, and take longer than a quarter of all others

# Session fixtures that take minutes. One worker runs all files that use one of them, so it is made once.
_DEMO = re.compile(r"\b(demo_run|executed_notebooks)\b")


@functools.cache
def unit(file: str) -> str:
    """Return the name of the unit of a file of tests. One worker runs all tests of a unit, in their order."""
    return "demo" if _DEMO.search((Path(__file__).parents[1] / file).read_text()) else file


class UnitScheduling(LoadScopeScheduling):
    """Hands out units in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid.split("::")[0])


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests ordered by unit: the demo, then by the number of slow tests; quick ones fill the end."""
    slow = Counter(unit(item.nodeid.split("::")[0]) for item in items if item.get_closest_marker("slow"))

    def key(item: pytest.Item) -> tuple[bool, int, str]:
        name = unit(item.nodeid.split("::")[0])
        return name != "demo", -slow[name], name

    return sorted(items, key=key)


def count(arguments: list[str], keyword: str) -> int:
    """Return the number of workers for these arguments of pytest; 0 runs the tests in pytest's own process.

    Chosen files or tests need no workers, whose start takes seconds; ``print`` and ``breakpoint`` then work as usual.
    """
    chosen = keyword or any("::" in argument or Path(argument).is_file() for argument in arguments)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if chosen or cores == 1 else min(cores, MOST_WORKERS)
