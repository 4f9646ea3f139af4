"""What processes that work on one thing owe each other: if one fails all end, without waiting, and one says why."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
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


def connected() -> bool:
    """Return whether this process works with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def raise_together(problems: Iterable[str], kind: type[UserError] = DataError) -> None:
    """Raise an error in every process if there is a problem in any. All of them have to call this.

    Args:
        problems: of this process; may be empty.
        kind: the error to raise.

    Raises:
        UserError: of that kind, with the problems of all processes, each once.
    """
    mine = list(problems)
    everyones = [mine]
    if connected():
        everyones = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(everyones, mine)
    found = dict.fromkeys(problem for share in everyones for problem in share)
    if found:
        raise kind("\n".join(found), everywhere=True)


def together(function: _Function) -> _Function:
    """Let a function that all processes call raise a user's mistake in all of them, if it is met in one."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        if not connected():
            return function(*args, **kwargs)
        error = None
        try:
            function(*args, **kwargs)
        except UserError as met:
            error = met
        raise_together([] if error is None else [str(error)], DataError if error is None else type(error))
        return None

    return wrapped  # type: ignore[return-value]


class Reported(Dataset[dict[str, Any]]):
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


class EndTogether(Callback):
    """Has a process that fails leave the others at once, instead of waiting for them in its last moments.

    Unless all processes have met the same error. It has to come before callbacks that save when a run fails.
    """

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave, and settle who tells why."""
        global _end
        if not connected() or (isinstance(exception, UserError) and exception.everywhere):
            return
        lost = _is_lost_connection(exception)
        _end = _End(exception, lost, _told(lost), noticed=torch.distributed.get_backend() == "gloo")
        _leave()


def lost_connection(error: BaseException) -> bool:
    """Return whether an error is no more than that another process has left this one."""
    return _end is not None and _end.lost and _end.error in (error, error.__cause__)


def others_tell(error: BaseException) -> bool:
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
