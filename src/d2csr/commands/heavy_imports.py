"""Imports of torch and Lightning by the commands, without garbage collection, and a fast exit after them."""

from __future__ import annotations

import atexit
import functools
import gc
from importlib import import_module


@functools.cache
def import_heavy(module: str) -> None:
    """Import a module that imports torch or Lightning, ahead of the import of its names.

    The garbage collector is paused: it would traverse the growing number of objects again and again. What exists after
    the import is mostly classes and functions, which live until the exit, so the collector ignores it from then on. At
    the exit it collects what remains of the run, as ever. But it no longer traverses all modules, which takes longer
    than a second. For commands alone: it concerns the whole process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        import_module(module)
    finally:
        if enabled:
            gc.enable()
    gc.freeze()
    atexit.register(_collect_and_freeze)


def _collect_and_freeze() -> None:
    gc.collect()  # calls the finalizers of what only cycles of references keep, such as workers
    gc.freeze()
