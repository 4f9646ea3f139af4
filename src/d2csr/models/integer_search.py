"""Whole numbers around a target of a growing function that is expensive to compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count

_MOST = 4096
_GAP = 64  # impossible values in a row, such as widths that are no multiple of a body's heads


def bracket(
    amount: Callable[[int], int | None], target: int, start: int, *, power: int, least: int = 1, most: int = _MOST
) -> list[tuple[int, int]]:
    """Return the largest value with at most the target and the smallest with more, each with its amount, if they exist.

    Interpolation needs about five amounts.

    Args:
        amount: grows with the value, and is None for an impossible value; called several times for one value.
        target: the amount to find.
        start: the first value to try.
        power: the amount grows roughly by this power of the value.
        least: the smallest value.
        most: the largest value.
    """
    low: tuple[int, int] | None = None
    high: tuple[int, int] | None = None
    guess = float(start)
    for step in count():
        first, last = (low[0] + 1 if low else least), (high[0] - 1 if high else most)
        value = _possible(amount, min(max(math.floor(guess), first), last), first, last)
        if value is None:
            break
        measured = amount(value)
        assert measured is not None
        low, high = ((value, measured), high) if measured <= target else (low, (value, measured))
        if low and high:
            halve = step % 3 == 2  # interpolation alone may move one side only
            share = 0.5 if halve else (target - low[1]) / (high[1] - low[1])
            guess = (low[0] ** power + share * (high[0] ** power - low[0] ** power)) ** (1 / power)
        else:
            guess = value * (max(target, 1) / max(measured, 1)) ** (1 / power)
    return [end for end in (low, high) if end is not None]


def _possible(amount: Callable[[int], int | None], guess: int, first: int, last: int) -> int | None:
    """Return the value nearest to a guess that has an amount, from ``first`` to ``last``; None if none is near."""
    near = sorted(range(max(first, guess - _GAP), min(last, guess + _GAP) + 1), key=lambda value: abs(value - guess))
    return next((value for value in near if amount(value) is not None), None)
