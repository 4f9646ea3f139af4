from __future__ import annotations

import pytest

from d2csr.checks import several_of
from d2csr.errors import ConfigError

KINDS = ("sr", "leaves", "weights")


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("sr", ("sr",)),
        ("sr,leaves", ("sr", "leaves")),
        (" weights , sr ", ("weights", "sr")),
        (["weights", "sr", "weights"], ("weights", "sr")),
        (None, ()),
        ([], ()),
    ],
)
def test_several_of_accepts_a_list_or_a_string(value, values) -> None:
    assert several_of("save", value, KINDS) == values


@pytest.mark.parametrize("value", ["", None, [], "sr,all", ["sr", 3], ["sr", None], True, 3, {"sr": 1}])
def test_several_of_refuses_other_values(value) -> None:
    with pytest.raises(ConfigError, match="save: must be of sr, leaves, weights, got"):
        several_of("save", value, KINDS, least=1)
