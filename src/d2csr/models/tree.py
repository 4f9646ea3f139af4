"""The shape of the divergence tree.

A node carries the paper's name: the path of child numbers from the root. With the paper's branching ``[2, 2]`` the
first level holds the nodes 1 and 2, the second the leaves 11, 12, 21 and 22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from d2csr.checks import shown, whole_number
from d2csr.errors import ConfigError

PAPER_BRANCHING = (2, 2)
MAX_LEVELS = 16
MAX_LEAVES = 1024


@dataclass(frozen=True)
class Tree:
    """A tree whose nodes of one level all have the same number of children.

    Raises:
        ConfigError: ``branching`` is empty or out of its range, or the tree has more levels or leaves than the limits.
    """

    #: Children of a node, from 1 to 9, one number a level: ``(2, 2)`` is the paper's tree, ``(4,)`` has four leaves
    #: right below the root.
    branching: Sequence[int] = PAPER_BRANCHING

    def __post_init__(self) -> None:
        levels = self.branching
        if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
            raise ConfigError(f"branching: must be a list of one whole number for each level, got {levels!r}.")
        for level in levels:
            whole_number("branching", level, 1, 9)
        if len(levels) > MAX_LEVELS or math.prod(levels) > MAX_LEAVES:
            raise ConfigError(
                f"branching: must have at most {MAX_LEVELS} levels and {MAX_LEAVES} leaves, got {shown(levels)}."
            )
        object.__setattr__(self, "branching", tuple(levels))

    @property
    def depth(self) -> int:
        """The number of levels below the root."""
        return len(self.branching)

    @property
    def num_leaves(self) -> int:
        """The number of predictions, K."""
        return math.prod(self.branching)

    def level(self, depth: int) -> list[str]:
        """Return the names of the nodes at ``depth`` (1 is right below the root), from left to right."""
        return ["".join(path) for path in product(*("123456789"[:n] for n in self.branching[:depth]))]

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes but the root, level by level."""
        return [name for depth in range(1, self.depth + 1) for name in self.level(depth)]

    @property
    def leaves(self) -> list[str]:
        """The names of the leaves, in the order of the predictions."""
        return self.level(self.depth)

    def children(self, node: str) -> list[str]:
        """Return the names of the children of a node that is no leaf; the root is ``""``."""
        return [node + digit for digit in "123456789"[: self.branching[len(node)]]]

    def siblings(self, first: int, second: int) -> bool:
        """Return whether two leaves, given by their position, have the same parent."""
        return first // self.branching[-1] == second // self.branching[-1]
