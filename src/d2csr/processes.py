"""What processes that work on one thing owe each other: if one fails all end, without waiting, and one says why."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch.utils.data import Dataset, default_collate

from d2csr.errors import DataError, UserError

# The key of the processes' common store under which one that fails says that it will tell why.
_TOLD = "d2csr/told"

_Function = TypeVar("_Function", bound=Callable[..., None])


class LostConnectionError(UserError):
    """Another process is gone; this one has nothing to say, unless nobody else does.

    Args:
        told: somebody else says why.
    """

    def __init__(self, told: bool) -> None:
        super().__init__(
            "another process has ended without a word; it was killed, perhaps because the memory was not enough."
        )
        self.told = told


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
    """Has a process that fails leave the others at once, instead of waiting for them in its last moments."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave, unless all processes have met the same error.

        Raises:
            LostConnectionError: the error is no more than that another process has left.
        """
        if not connected() or (isinstance(exception, UserError) and exception.everywhere):
            return
        lost = is_lost_connection(exception)
        told = _tell_or_ask(ask=lost)
        _leave()
        if lost:
            raise LostConnectionError(told) from exception


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error comes from the connection between processes."""
    text = str(error)
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in ("by peer", "gloo", "ProcessGroup", "NCCL"))
    )


def linger() -> None:
    """Wait until the process is gone that started this one, if Lightning did: it kills all when one of them ends."""
    if os.environ.get("LOCAL_RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    parent, patience = os.getppid(), time.monotonic() + 60
    while os.getppid() == parent and time.monotonic() < patience:
        time.sleep(0.1)


def _tell_or_ask(ask: bool) -> bool:
    """Say in the common store that this process tells what is wrong, or ask whether another one does."""
    try:
        store = torch.distributed.distributed_c10d._get_default_store()
        if ask:
            return store.check([_TOLD])
        store.set(_TOLD, "1")
    except (RuntimeError, ValueError):  # gone, and the first process with it, which kept it and tells for itself
        return True
    return False


def _leave() -> None:
    """Close the connections, so that the others notice and nothing here waits for them."""
    group = torch.distributed.distributed_c10d
    abort = getattr(group, "_abort_process_group", None)
    if abort is not None and torch.distributed.get_backend() == "nccl":  # which waits for what is under way
        abort()
    else:
        torch.distributed.destroy_process_group()
