"""Results, errors and exit statuses of the ranks of a distributed run."""

from __future__ import annotations

import atexit
import functools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from d2csr.errors import DataError, UserError
from d2csr.torch_internals import abort_process_group, default_store

LOST = "another process ended without an error message; it was killed, perhaps because the memory was not enough."

# Key in the store of the process group: a rank has reported the error.
_REPORTED = "d2csr/reported"
# One rank can check and cache a large data set for hours, while the others wait.
_PREPARATION_TIMEOUT = timedelta(hours=24)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Result = TypeVar("_Result")


def is_distributed() -> bool:
    """Return whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the rank of this process: of its process group or, without one, from the launcher's variables."""
    if is_distributed():
        return dist.get_rank()
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in Lightning's order
    found = next((int(os.environ[name]) for name in names if name in os.environ), 0)
    if "RANK" not in os.environ and "LOCAL_RANK" in os.environ:
        found += int(os.environ.get("NODE_RANK", 0))  # not exact, but 0 on the first node alone
    return found


def is_rank_zero() -> bool:
    """Return whether this process writes files and messages."""
    return rank() == 0


def gather(value: _Result, group: Any = None) -> list[_Result]:
    """Return the values of all ranks, in their order. Every rank has to call this."""
    values = [value]
    if is_distributed():
        values *= dist.get_world_size()
        dist.all_gather_object(values, value, group=group)
    return values


def gather_and_raise(problems: Iterable[str], kind: type[UserError] = DataError, group: Any = None) -> None:
    """Raise an error of a kind with the problems of all ranks, each once, if any rank has one.

    Every rank of the group has to call this with its own problems, or none. The default group is that of all ranks.
    """
    outcomes = gather((list(problems), kind), group)
    if found := dict.fromkeys(problem for share, _ in outcomes for problem in share):
        kind = next(kind for share, kind in outcomes if share)
        raise kind("\n".join(found), everywhere=True)


def raise_on_all_ranks(function: _Function) -> _Function:
    """Let a function that every rank calls raise the :class:`UserError` of any rank on all of them.

    The error has the messages of all ranks, each once. A rank waits up to 24 hours for another one.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        group = _preparation_group(dist.group.WORLD)  # now: all ranks have to be here within the time-out
        try:
            result = function(*args, **kwargs)
        except UserError as error:
            if group is not None:
                gather_and_raise([str(error)], type(error), group)
            raise
        gather_and_raise([], group=group)
        return result

    return wrapped  # type: ignore[return-value]


def gather_problems(find: Callable[[], tuple[_Result, dict[int, str]]]) -> tuple[_Result, dict[int, str]]:
    """Return the result of this rank, and the problems of all ranks by the number of the pair. Disks may differ.

    An error of any rank is raised on all of them.
    """
    result, problems = raise_on_all_ranks(find)()
    shares = gather(problems, _preparation_group(dist.group.WORLD))
    return result, {number: text for found in reversed(shares) for number, text in found.items()}


@functools.lru_cache(maxsize=1)
def _preparation_group(world: Any) -> Any:
    """Return a group of all ranks with the time-out of preparations; None without a ``world``, in a single process."""
    return None if world is None else dist.new_group(backend="gloo", timeout=_PREPARATION_TIMEOUT)


@atexit.register
def _destroy_groups() -> None:
    """Destroy the process groups: with those of gloo alive, the end of Python sometimes aborts (torch 2.15)."""
    _preparation_group.cache_clear()
    if is_distributed() and _departure is None:
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Departure:
    """Why and how this rank left the process group."""

    lost_connection: bool  # the error says only that another rank has left
    reported: bool  # another rank reports the reason
    noticed: bool  # the other ranks notice the end of this process


_departure: _Departure | None = None


def leave_after(error: BaseException) -> None:
    """Leave the process group because of an error, and decide with the other ranks which of them reports it."""
    global _departure
    _departure = _Departure(_connection_failed(error), _is_reported(error), noticed=dist.get_backend() == "gloo")
    abort_process_group()


def has_lost_connection() -> bool:
    """Return whether this rank left the process group only because another one had left."""
    return _departure is not None and _departure.lost_connection


def is_timeout(error: BaseException) -> bool:
    """Return whether an error says that another rank did not answer in time."""
    return isinstance(error, RuntimeError) and "timed out" in str(error).lower() and _connection_failed(error)


def another_rank_reports(error: BaseException) -> bool:
    """Return whether another rank reports the reason for the end of all ranks."""
    if _departure is not None:
        return _departure.reported
    return isinstance(error, UserError) and error.everywhere and not is_rank_zero()


def exit_status() -> int:
    """Return the exit status after an error, once this process may end.

    Lightning kills rank 0, which may be saving, when a process that it started ends with another status than 0.
    """
    if is_rank_zero() or "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ:
        return 1
    if _departure is not None:
        return 0 if _departure.noticed else 1  # otherwise rank 0 would wait forever
    parent, end = os.getppid(), time.monotonic() + 60
    while os.getppid() == parent and time.monotonic() < end:  # rank 0 meets the same error
        time.sleep(0.1)
    return 1


def _connection_failed(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("by peer", "gloo", "ProcessGroup", "NCCL"))
    )


def _is_reported(error: BaseException) -> bool:
    """Return whether another rank reports the reason, by the store, which mostly ends with rank 0."""
    if is_timeout(error):  # rank 0 and the store may hang
        return rank() > 1
    lost = _connection_failed(error)
    if lost and not is_rank_zero():
        return True
    try:
        return default_store().check([_REPORTED]) if lost else default_store().add(_REPORTED, 1) > 1
    except (RuntimeError, ValueError):
        return lost
