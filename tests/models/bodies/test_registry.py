from __future__ import annotations

import json
from typing import Any

import pytest
from torch import Tensor, nn

from d2csr.errors import ConfigError
from d2csr.models import D2CSR, register_body
from d2csr.models.bodies import complete_settings


def register(name: str = "mine", default: Any = 2) -> type[nn.Module]:
    @register_body(name)
    class Mine(nn.Module):
        def __init__(self, features: int, width: int, depth: Any = default) -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Tensor:
            return x + 0

    return Mine


def test_defaults_are_completed_in_the_order_of_the_signature():
    register()
    assert list(complete_settings({"width": 5, "name": "mine"}).items()) == [
        ("name", "mine"),
        ("width", 5),
        ("depth", 2),
    ]


def test_settings_are_the_same_after_json():
    register(default=[1, [2.5, "a", None, True]])
    for body in ("rcab", {"name": "rcab", "blocks": 1}, {"name": "mine", "width": 3}):
        settings = D2CSR(2, 16, (2, 1), 4, body).settings
        again = D2CSR(**json.loads(json.dumps(settings))).settings
        assert again == settings == json.loads(json.dumps(settings))


def test_a_tuple_becomes_a_list():
    register(default=(1, (2, 3)))
    assert complete_settings({"name": "mine", "width": 1})["depth"] == [1, [2, 3]]


@pytest.mark.parametrize("value", [{}, {"a": 1}, object(), float("nan"), float("inf"), [1, float("nan")], b"a", {1}])
def test_a_value_that_json_cannot_hold_is_refused(value):
    register()
    with pytest.raises(ConfigError, match=r"^body.depth: must be a number, a string"):
        complete_settings({"name": "mine", "width": 1, "depth": value})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "mine"}, "body.width: the body 'mine' needs a value"),
        ({"name": "mine", "width": 1, "hight": 2}, "body.hight: the body 'mine' has no such setting"),
        ({"name": "yours"}, "body.name: must be one of "),
        ({}, "body.name: must be one of "),
        (["mine"], "body: must hold a name and the settings of a body"),
    ],
)
def test_wrong_settings_are_named(body, message):
    register()
    with pytest.raises(ConfigError) as error:
        complete_settings(body)
    assert str(error.value).startswith(message)


def test_a_class_of_the_same_qualified_name_replaces_the_first():
    assert register() is not register()


def test_another_class_of_the_same_name_is_refused():
    register()
    with pytest.raises(ConfigError, match=r"body.name: 'mine' is taken by .*Mine; choose another"):

        @register_body("mine")
        class Other(nn.Module):
            pass
