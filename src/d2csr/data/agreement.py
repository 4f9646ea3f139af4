"""What the processes of a distributed run have to agree on: which pairs there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from d2csr.errors import DataError, UserError
from d2csr.processes import connected


def agreed(find: Callable[[], dict[int, str]]) -> dict[int, str]:
    """Return what any process of a distributed run finds, so that all of them go on with the same pairs.

    Every process looks for itself, since each machine has disks of its own.

    Args:
        find: finds what is wrong with pairs, by their number.

    Raises:
        UserError: what ``find`` raised in this process or, as a DataError, in another one.
    """
    mine: dict[int, str] = {}
    failure: UserError | None = None
    try:
        mine = find()
    except UserError as error:
        failure = error
    if connected():
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, (mine, failure and str(failure)))
        failure = failure or next((DataError(text) for _, text in everyone if text is not None), None)
        mine = {number: text for found, _ in reversed(everyone) for number, text in found.items()}
    if failure is not None:
        raise failure
    return mine
