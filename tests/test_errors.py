from __future__ import annotations

import pytest

from d2csr.errors import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/ö 日本.png: no such file\nsecond line", "a/ö 日本.png: no such file\nsecond line"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_control_characters_are_escaped(text, expected):
    assert printable(text) == expected
