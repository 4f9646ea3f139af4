"""Checks that files of strangers are refused with one message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from d2csr.checkpoints import load_model
from d2csr.errors import CheckpointError


def refusal(path: Path, content: bytes, read: Callable[[Path], Any] = load_model) -> str:
    """Write a file, and return the message that it is refused with; it begins with the path and is short."""
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 1000
    return message


def count_refused(path: Path, contents: Iterable[bytes]) -> int:
    """Load files one after the other; return how many are refused. Any other error is a failure."""
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            load_model(path)
        except CheckpointError:
            refused += 1
    return refused


def assert_refused_within_limits(load_limited: Callable[..., Any], cases: dict[str, bytes], how: str = "load") -> None:
    """Read all files in a process with limits on memory and time."""
    outcomes = load_limited(cases, how)
    assert len(outcomes) == len(cases)
    assert {name: error for name, error in outcomes.items() if error[0] != "CheckpointError"} == {}
