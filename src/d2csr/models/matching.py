"""Networks of equal size: the width or depth with which one network has the parameters or FLOPs of another.

A comparison of architectures is fair at equal parameters or equal FLOPs only. :func:`match_network` changes one network
until it has as many as a reference network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import nn

from d2csr.checks import MATCHED, MATCHED_BY, number, one_of, shown
from d2csr.errors import ConfigError
from d2csr.models.bodies import complete_settings
from d2csr.models.cost import Cost, count_flops, count_parameters, on_meta
from d2csr.models.d2csr import ConvergenceNetwork

#: The largest difference that counts as equal, as a fraction of the reference.
TOLERANCE = 0.1
#: Side in pixels of the LR image that FLOPs are counted for.
LR_SIZE = 48
#: Names of a body's number of blocks, the preferred one first.
DEPTHS = ("blocks", "layers", "depth", "groups")
_FUSION = 4 / 3  # most and least change of the fusion's width relative to that of the predictions
_MOST = 4096  # the largest width or depth
_GAP = 64  # impossible values in a row, such as widths that are no multiple of a body's heads

_Candidate = tuple[dict[str, Any], int]  # settings of a network, and its parameters or FLOPs


@dataclass(frozen=True)
class Match:
    """A network that was matched to a reference; costs are those of one LR image of ``LR_SIZE``×``LR_SIZE`` pixels."""

    settings: dict[str, Any]  #: the adjusted settings, for :func:`d2csr.models.build_network`
    changed: dict[str, tuple[int, int]]  #: what differs (``features``, ``body.blocks``): the value before and now
    way: str  #: ``width`` or ``depth``
    cost: Cost  #: of the adjusted network
    reference: Cost  #: of the reference
    difference: float  #: of the matched quantity, in percent of the reference; positive if the network is larger


def match_network(
    settings: Mapping[str, Any],
    reference: Mapping[str, Any],
    quantity: str,
    *,
    by: str | None = None,
    tolerance: float = TOLERANCE,
) -> Match:
    """Adjust a network until it has as many parameters, or takes as many FLOPs, as a reference.

    The width is ``features``; the ``fusion_features`` of a tree change in the same proportion, and for equal FLOPs then
    by up to a third, to come closer. The depth is the number of blocks of a body (in a group, if it has groups). The
    other one is kept. FLOPs are those of one forward pass as in inference: head, bodies, tails and fusion of all leaves
    or paths.

    Args:
        settings: of the network to adjust, as for :func:`d2csr.models.build_network`.
        reference: settings of the reference network.
        quantity: ``parameters`` or ``flops``.
        by: ``width``, ``depth``, or None for the width, and the depth if no width comes within the tolerance.
        tolerance: the largest difference, as a fraction of the reference.

    Raises:
        ConfigError: a setting is impossible, or no width or depth comes within the tolerance.
        TypeError: a setting is unknown or missing.
    """
    one_of("match", quantity, MATCHED)
    number("tolerance", tolerance, least=0)
    if by is not None:
        one_of("match_by", by, MATCHED_BY)
    own = {**settings, "body": complete_settings(settings.get("body", "rcab"))}
    reference_cost = _cost(on_meta(reference))
    target: int = getattr(reference_cost, quantity)
    tried: list[_Candidate] = []
    for way in MATCHED_BY if by is None else (by,):
        found = (_widths if way == "width" else _depths)(own, target, quantity)
        tried += found
        best, amount = min(found, key=lambda candidate: abs(candidate[1] - target), default=(own, math.inf))
        if abs(amount - target) <= tolerance * target:
            cost, difference = _cost(on_meta(best)), 100 * (amount - target) / target
            return Match(copy.deepcopy(best), _changes(own, best), way, cost, reference_cost, difference)
    raise ConfigError(
        f"match: no {by or 'width or depth'} of the network comes within {100 * tolerance:g} % of the reference, "
        f"{_shown(quantity, target)}: {_all_shown(own, tried, quantity)}. Change its other settings or the "
        "reference."
    )


def reference_settings(settings: Mapping[str, Any], to: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings of a reference network by those of the network that is matched to it.

    Args:
        settings: of the network to adjust.
        to: settings of the reference. ``paths`` makes it a network without a tree, ``branching`` one with a tree;
            without either it has the architecture of ``settings``. A setting that is absent or None is that of
            ``settings``. A body of another name has its own defaults. ``fusion_features`` that neither of them has are
            ``features``.

    Raises:
        ConfigError: it has both ``paths`` and ``branching``, or a setting that its architecture does not have.
    """
    given = {name: value for name, value in to.items() if value is not None and value != {}}
    if {"paths", "branching"} <= set(given):
        raise ConfigError("paths: a network has either paths or a tree; remove paths or branching.")
    own = settings.get("architecture", "d2csr")
    architecture = "ensemble" if "paths" in given else "d2csr" if "branching" in given else own
    merged = {**{name: value for name, value in settings.items() if name != "architecture"}, **given}
    shape = ("paths",) if architecture == "ensemble" else ("branching", "fusion_features")
    names = ("scale", "features", "body", *shape)
    for name in given:
        if name not in names:
            raise ConfigError(f"{name}: the reference has no such setting; it has {', '.join(names[1:])}.")
    merged.setdefault("fusion_features", merged["features"])
    body, other = given.get("body", {}), settings.get("body", "rcab")
    if not isinstance(body, Mapping):
        raise ConfigError(f"body: must hold the name or settings of a body, such as body.name=swin, got {shown(body)}.")
    other = {"name": other} if isinstance(other, str) else dict(other)
    merged["body"] = {**other, **body} if body.get("name", other["name"]) == other["name"] else dict(body)
    return {"architecture": architecture, **{name: merged[name] for name in names if name in merged}}


def _widths(settings: dict[str, Any], target: int, quantity: str) -> list[_Candidate]:
    """Return the widths around the target, from below and above, with the best fusion of each."""

    def with_features(value: int) -> dict[str, Any]:
        adjusted = {**settings, "features": value}
        if "fusion_features" in settings:
            adjusted["fusion_features"] = max(1, round(settings["fusion_features"] * value / settings["features"]))
        return adjusted

    candidates = _around(with_features, target, quantity, settings["features"], power=2)
    if "fusion_features" not in settings or quantity == "parameters":  # the fusion has few parameters
        return candidates
    return candidates + [closer for one in candidates for closer in _with_other_fusion(*one, target)]


def _with_other_fusion(settings: dict[str, Any], flops: int, target: int) -> list[_Candidate]:
    """Return the widths of the fusion that bring a network closer to the target; the predictions stay as they are."""
    leaves = math.prod(settings["branching"])

    @cache
    def fusion(features: int) -> int:
        with torch.device("meta"):
            network = ConvergenceNetwork(leaves, features)
        side = LR_SIZE * settings["scale"]
        return count_flops(network, (1, leaves, 3, side, side))

    present = settings["fusion_features"]
    rest = flops - fusion(present)
    least, most = math.ceil(present / _FUSION), math.floor(present * _FUSION)
    found = bracket(fusion, target - rest, present, power=1, least=least, most=most)
    return [({**settings, "fusion_features": value}, rest + amount) for value, amount in found]


def _depths(settings: dict[str, Any], target: int, quantity: str) -> list[_Candidate]:
    """Return the depths around the target, from below and above; none if the body has no number of blocks."""
    body = settings["body"]
    name = next((name for name in DEPTHS if type(body.get(name)) is int), None)
    if name is None:
        return []

    def with_blocks(value: int) -> dict[str, Any]:
        return {**settings, "body": {**body, name: value}}

    return _around(with_blocks, target, quantity, body[name], power=1)


def _around(
    settings_with: Callable[[int], dict[str, Any]], target: int, quantity: str, start: int, *, power: int
) -> list[_Candidate]:
    """Return the networks with the values around the target, from below and above."""

    @cache
    def amount(value: int) -> int | None:
        try:
            network = on_meta(settings_with(value))
        except ConfigError:
            return None
        return count_parameters(network) if quantity == "parameters" else _flops(network)

    return [(settings_with(value), found) for value, found in bracket(amount, target, start, power=power)]


def bracket(
    amount: Callable[[int], int | None], target: int, start: int, *, power: int, least: int = 1, most: int = _MOST
) -> list[tuple[int, int]]:
    """Return the largest value with at most the target and the smallest with more, each with its amount, if they exist.

    The amount grows with the value, roughly by a power of it, and is None for an impossible value. It is expensive to
    compute; interpolation, which begins at ``start``, needs about five of them.
    """
    low: tuple[int, int] | None = None
    high: tuple[int, int] | None = None
    guess = float(start)
    for step in count():
        first, last = (low[0] + 1 if low else least), (high[0] - 1 if high else most)
        nearest = min(max(math.floor(guess), first), last)
        near = range(max(first, nearest - _GAP), min(last, nearest + _GAP) + 1)
        value = next((one for one in sorted(near, key=lambda one: abs(one - nearest)) if amount(one) is not None), None)
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


def _cost(network: nn.Module) -> Cost:
    return Cost(count_parameters(network), _flops(network))


def _flops(network: nn.Module) -> int:
    return count_flops(network, (1, 3, LR_SIZE, LR_SIZE))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the settings that differ, those of the body as ``body.NAME``, with both values."""
    changed = {name: (before[name], now[name]) for name in now if name != "body" and before[name] != now[name]}
    body, adjusted = before["body"], now["body"]
    return changed | {f"body.{name}": (body[name], adjusted[name]) for name in adjusted if body[name] != adjusted[name]}


def _shown(quantity: str, amount: int) -> str:
    return f"{amount:,} parameters" if quantity == "parameters" else f"{amount / 1e9:,.4g} GFLOP"


def _all_shown(settings: dict[str, Any], tried: list[_Candidate], quantity: str) -> str:
    lines = []
    for candidate, amount in tried:
        changed = " ".join(f"{name}={now}" for name, (_, now) in _changes(settings, candidate).items())
        lines.append(f"{changed or 'the network as it is'} has {_shown(quantity, amount)}")
    return ", ".join(dict.fromkeys(lines)) or "no other size of it is possible"
