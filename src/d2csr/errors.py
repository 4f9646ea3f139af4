"""Errors that a user can cause and fix. The commands print their message alone; others keep their traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# What torch says of a full disk: older versions, and torch 2.15, which does not name the system's error.
_NO_SPACE = r"PytorchStreamWriter failed writing|inline_container\.cc.* unexpected pos|No space left on device"
# What torch says, beside Python's MemoryError.
_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def printable(text: str) -> str:
    """Return a text with its control characters escaped, except line breaks: names in files can control a terminal."""
    return "".join(
        char if char.isprintable() or char in "\n " else char.encode("unicode_escape").decode() for char in text
    )


def shown_name(name: object, most: int | None = 100) -> str:
    """Return a name from a file on one line, with control characters escaped, and cut for a message."""
    return printable(str(name)[:most]).replace("\n", "\\n")


def one_line(text: object, most: int = 200) -> str:
    """Return a text on one line, cut for a message."""
    return " ".join(str(text).split())[:most]


def first_of(lines: Sequence[str], most: int = 20) -> list[str]:
    """Return the first lines, and how many more there are."""
    return [*lines[:most], *([f"... and {len(lines) - most} more"] if len(lines) > most else [])]


def did_you_mean(name: str, names: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """Return a question with the names that are like a mistyped one; empty if there are none."""
    nearest = get_close_matches(name, sorted(names), n=most, cutoff=cutoff)
    return f"Did you mean {' or '.join(nearest)}?" if nearest else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of the host or of a device is not enough."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that there is no space left on a disk, by its number or its text."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(re.search(_NO_SPACE, str(error)))


class UserError(ValueError):
    """A mistake in the user's input; the message says what is wrong, where, and what to do.

    ``everywhere``: every rank raises this error, so only one has to report it.
    """

    def __init__(self, message: str = "", *, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class DataError(UserError):
    """A list, an image or a data folder that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or does not fit the task."""


class ConfigError(UserError):
    """A setting with an impossible value, or two settings that exclude each other."""


class Stopped(Exception):  # noqa: N818 - the user asked for it
    """A run that a signal ended after it was saved; ``status`` is its exit status, the message says how to resume."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.status = 128 + signal


class TrainingError(UserError):
    """A run that cannot continue: its loss is not finite, or the memory or the disk is full."""
