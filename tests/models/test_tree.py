from __future__ import annotations

import pytest

from d2csr.errors import ConfigError
from d2csr.models import Tree


def test_the_papers_tree_has_the_papers_names():
    tree = Tree()
    assert tree.nodes == ["1", "2", "11", "12", "21", "22"]
    assert tree.leaves == ["11", "12", "21", "22"]
    assert (tree.depth, tree.num_leaves) == (2, 4)


def test_children_are_numbered_from_one():
    tree = Tree((2, 3))
    assert tree.children("") == ["1", "2"]
    assert tree.children("2") == ["21", "22", "23"]


def test_leaves_are_ordered_depth_first():
    assert Tree((2, 1, 2)).leaves == ["111", "112", "211", "212"]
    assert Tree((4,)).leaves == ["1", "2", "3", "4"]


@pytest.mark.parametrize("branching", [(2, 2), (4,), (3, 3), (2, 2, 2), (1, 3), (3, 1), (1,)])
def test_siblings_differ_only_in_the_last_digit_of_their_names(branching):
    tree = Tree(branching)
    for k, first in enumerate(tree.leaves):
        for j, second in enumerate(tree.leaves):
            assert tree.siblings(k, j) == (first[:-1] == second[:-1])


@pytest.mark.parametrize("branching", [(), (0,), (2, -1), ("2",), (2.0,), (10,), (2, None), (9,) * 4, (1,) * 17])
def test_an_impossible_branching_is_refused(branching):
    with pytest.raises(ConfigError, match=r"^branching: must (be a|have at most)"):
        Tree(branching)
