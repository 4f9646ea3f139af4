"""Results, errors and exit statuses of the ranks of a distributed run."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from torch.utils.data import Dataset, default_collate

from d2csr.errors import DataError, UserError

LOST = "another process ended without an error message; it was killed, perhaps because the memory was not enough."

# Key in the store of the process group: one rank has reported why all of them end.
_REPORTED = "d2csr/reported"
# Checks and caches of a large data set can take hours on one rank, while the others wait.
_PREPARATION_TIMEOUT = timedelta(hours=24)

_Function = TypeVar("_Function", bound=Callable[..., None])
_Result = TypeVar("_Result")


def is_distributed() -> bool:
    """Return whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the rank of this process: of its process group or, without one, from the launcher's variables."""
    if is_distributed():
        return dist.get_rank()
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in the order that Lightning uses
    found = next((int(os.environ[name]) for name in names if name in os.environ), 0)
    if "RANK" not in os.environ and "LOCAL_RANK" in os.environ:
        found += int(os.environ.get("NODE_RANK", 0))  # not exact, but 0 on the first node alone
    return found


def is_rank_zero() -> bool:
    """Return whether this process writes files and messages."""
    return rank() == 0


# Errors that every rank raises.


def gather_and_raise(problems: Iterable[str], kind: type[UserError] = DataError) -> None:
    """Raise an error on every rank if there is a problem on any. Every rank has to call this.

    Args:
        problems: of this rank; may be empty.
        kind: the error to raise.

    Raises:
        UserError: of that kind, with the problems of all ranks, each once.
    """
    _exchange(None, list(problems), kind, group=None)


def call_on_all_ranks(function: Callable[[], _Result]) -> list[_Result]:
    """Call a function on every rank and return the results of all ranks, in their order. Every rank has to call this.

    The ranks may need very different times: the group's time-out does not apply, but one of 24 hours.

    Raises:
        UserError: on every rank, if the function raised one on any; with the messages of all, each once.
    """
    if not is_distributed():
        return [function()]
    group = _preparation_group()  # before the function: all ranks have to be here within the time-out
    try:
        outcome: tuple[Any, list[str], type[UserError]] = (function(), [], DataError)
    except UserError as error:
        outcome = (None, [str(error)], type(error))
    return _exchange(*outcome, group)


def raise_on_all_ranks(function: _Function) -> _Function:
    """Let a function that every rank calls raise a :class:`UserError` on all ranks if one of them meets it."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        call_on_all_ranks(lambda: function(*args, **kwargs))

    return wrapped  # type: ignore[return-value]


def gather_problems(find: Callable[[], dict[int, str]]) -> dict[int, str]:
    """Return the problems with pairs that any rank finds, so that all ranks use the same pairs.

    Every rank searches, since each machine has its own disks.

    Args:
        find: returns problems by the number of the pair.

    Raises:
        UserError: on every rank, if ``find`` raised one on any.
    """
    return {number: text for found in reversed(call_on_all_ranks(find)) for number, text in found.items()}


def _exchange(result: Any, problems: list[str], kind: type[UserError], group: Any) -> list[Any]:
    """Gather the results of all ranks, or raise the problems of all ranks on each of them."""
    outcomes: list[Any] = [(result, problems, kind)]
    if is_distributed():
        outcomes *= dist.get_world_size()
        dist.all_gather_object(outcomes, (result, problems, kind), group=group)
    found = dict.fromkeys(problem for _, share, _ in outcomes for problem in share)
    if found:
        kind = next(kind for _, share, kind in outcomes if share)
        raise kind("\n".join(found), everywhere=True)
    return [result for result, _, _ in outcomes]


@functools.lru_cache(maxsize=1)
def _group_beside(world: Any) -> Any:
    return dist.new_group(backend="gloo", timeout=_PREPARATION_TIMEOUT)


def _preparation_group() -> Any:
    """Return a group of all ranks with the time-out of preparations, made at the first call."""
    return _group_beside(dist.group.WORLD)


class ErrorReportingDataset(Dataset[dict[str, Any]]):
    """A data set that returns a report for a broken item instead of raising, so that all ranks can raise together.

    Args:
        items: the data set.
        stand_in: returned for a broken item, with the message under ``error``.
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
        """Return a batch of the items or, if any is broken, of the broken ones alone."""
        return default_collate([item for item in items if "error" in item] or items)


# The end of all ranks after an error on one.


@dataclass(frozen=True)
class _Failure:
    """The error after which this rank left the process group.

    Attributes:
        error: the exception.
        lost: it says no more than that another rank has left.
        reported: another rank reports the reason.
        noticed: the other ranks notice that this process has ended.
    """

    error: BaseException
    lost: bool
    reported: bool
    noticed: bool


_failure: _Failure | None = None


def leave_after(error: BaseException, *, store: Callable[[], Any], close: Callable[[], None]) -> None:
    """Leave the process group because of an error, and settle with the other ranks which of them reports it.

    Args:
        error: the exception.
        store: returns the store of the process group.
        close: closes the connections, so that the others notice and this process waits for none.
    """
    global _failure
    lost = _connection_failed(error)
    _failure = _Failure(error, lost, _reported(lost, is_timeout(error), store), noticed=dist.get_backend() == "gloo")
    close()


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error says no more than that another rank has left."""
    return _failure is not None and _failure.lost and _failure.error in (error, error.__cause__)


def is_timeout(error: BaseException) -> bool:
    """Return whether an error says that another rank did not answer in time."""
    return isinstance(error, RuntimeError) and "timed out" in str(error).lower() and _connection_failed(error)


def another_rank_reports(error: BaseException) -> bool:
    """Return whether another rank prints why all of them end."""
    if _failure is not None and _failure.error in (error, error.__cause__):
        return _failure.reported
    return isinstance(error, UserError) and error.everywhere and not is_rank_zero()


def exit_status(error: BaseException) -> int:
    """Return the exit status after an error, once this process may end.

    Lightning kills rank 0, which may be saving, when a process that it started ends with another status than 0.
    """
    if is_rank_zero() or "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ:
        return 1
    if _failure is not None and _failure.error in (error, error.__cause__):
        return 0 if _failure.noticed else 1  # else rank 0 would wait for ever
    parent, end = os.getppid(), time.monotonic() + 60
    while os.getppid() == parent and time.monotonic() < end:  # rank 0 meets the same error
        time.sleep(0.1)
    return 1


def _connection_failed(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("by peer", "gloo", "ProcessGroup", "NCCL"))
    )


def _reported(lost: bool, timeout: bool, store: Callable[[], Any]) -> bool:
    """Return whether another rank reports the reason; if none does, this rank has to.

    The ranks settle it in their store. Rank 0 mostly holds the store, and takes it along when it ends.
    """
    if timeout:  # rank 0 may be the one that hangs, and the store with it
        return rank() > 1
    if lost and not is_rank_zero():
        return True
    try:
        return store().check([_REPORTED]) if lost else store().add(_REPORTED, 1) > 1
    except (RuntimeError, ValueError):
        return lost
