"""What processes that work on one thing owe each other: if one fails all end, without waiting, and one says why."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.utils.data import Dataset, default_collate

from d2csr.errors import DataError, UserError

# The key of the processes' common store under which one that fails says that it will tell why.
_TOLD = "d2csr/told"

_Function = TypeVar("_Function", bound=Callable[..., None])


LOST = "another process has ended without a word; it was killed, perhaps because the memory was not enough."


@dataclass(frozen=True)
class _End:
    """How this process came to leave the others.

    Attributes:
        error: what it met.
        lost: that is no more than that another one has left.
        told: another one says why.
        noticed: the others notice that this one has ended.
    """

    error: BaseException
    lost: bool
    told: bool
    noticed: bool


_end: _End | None = None


def is_distributed() -> bool:
    """Return whether this process works with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def gather_and_raise(problems: Iterable[str], kind: type[UserError] = DataError) -> None:
    """Raise an error in every process if there is a problem in any. All of them have to call this.

    Args:
        problems: of this process; may be empty.
        kind: the error to raise.

    Raises:
        UserError: of that kind, with the problems of all processes, each once.
    """
    mine = list(problems)
    everyones = [mine]
    if is_distributed():
        everyones = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(everyones, mine)
    found = dict.fromkeys(problem for share in everyones for problem in share)
    if found:
        raise kind("\n".join(found), everywhere=True)


def raise_on_all_ranks(function: _Function) -> _Function:
    """Let a function that all processes call raise a user's mistake in all of them, if it is met in one."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        if not is_distributed():
            return function(*args, **kwargs)
        error = None
        try:
            function(*args, **kwargs)
        except UserError as met:
            error = met
        gather_and_raise([] if error is None else [str(error)], DataError if error is None else type(error))
        return None

    return wrapped  # type: ignore[return-value]


class ErrorReportingDataset(Dataset[dict[str, Any]]):
    """A data set whose broken items come as a report instead of an error, so that it can be raised together.

    Args:
        items: the data set.
        stand_in: what to return in place of a broken item, beside ``error``, the text.
    """

    def __init__(self, items: Dataset[Any], stand_in: Mapping[str, Any]) -> None:
        self.items = items
        self.stand_in = stand_in

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> dict[str, Any]:
        try:
            return self.items[key]
        except DataError as error:
            return {**self.stand_in, "error": str(error)}

    @staticmethod
    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch: of the items, or of those alone that are broken."""
        return default_collate([item for item in items if "error" in item] or items)


def leave_after(error: BaseException) -> None:
    """Leave the process group because of an error, and settle with the other ranks which of them reports it."""
    global _end
    lost = _is_lost_connection(error)
    _end = _End(error, lost, _told(lost), noticed=torch.distributed.get_backend() == "gloo")
    _leave()


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error is no more than that another process has left this one."""
    return _end is not None and _end.lost and _end.error in (error, error.__cause__)


def another_rank_reports(error: BaseException) -> bool:
    """Return whether it is for another process to say why all of them end."""
    if _end is not None and _end.error in (error, error.__cause__):
        return _end.told
    return isinstance(error, UserError) and error.everywhere and getattr(rank_zero_only, "rank", 0) != 0


def exit_status(error: BaseException) -> int:
    """Return the status to end with after an error, once it is time to end.

    Lightning kills the first process, which may be saving, when one that it started ends with another status than 0.
    """
    rank_zero = getattr(rank_zero_only, "rank", 0) == 0
    if rank_zero or "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ:
        return 1
    if _end is not None and _end.error in (error, error.__cause__):
        return 0 if _end.noticed else 1  # to be killed is better than to wait for ever
    parent, patience = os.getppid(), time.monotonic() + 60
    while os.getppid() == parent and time.monotonic() < patience:  # it is about to end by itself
        time.sleep(0.1)
    return 1


def _is_lost_connection(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("by peer", "gloo", "ProcessGroup", "NCCL"))
    )


def _told(lost: bool) -> bool:
    """Return whether another process tells what is wrong; if none does, this one is to do so from now.

    They settle it in their common store. Most often the first process keeps it, and takes it along when it ends.
    """
    if lost and getattr(rank_zero_only, "rank", 0) != 0:
        return True
    try:
        store = torch.distributed.distributed_c10d._get_default_store()
        return store.check([_TOLD]) if lost else store.add(_TOLD, 1) > 1
    except (RuntimeError, ValueError):
        return lost


def _leave() -> None:
    """Close the connections, so that the others notice and nothing here waits for them."""
    group = torch.distributed.distributed_c10d
    # Destroying it closes nothing while DDP holds it, and waits on NCCL for what is under way.
    getattr(group, "_abort_process_group", group.destroy_process_group)()


def gather_problems(find: Callable[[], dict[int, str]]) -> dict[int, str]:
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
    if is_distributed():
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, (mine, failure and str(failure)))
        failure = failure or next((DataError(text) for _, text in everyone if text is not None), None)
        mine = {number: text for found, _ in reversed(everyone) for number, text in found.items()}
    if failure is not None:
        raise failure
    return mine


def is_rank_zero() -> bool:
    """Say whether this is the process that writes files and messages."""
    return getattr(rank_zero_only, "rank", 0) == 0
