"""End of a forked process that calls the entry point of a command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def call_and_exit(entry_point: Callable[[], None]) -> NoReturn:
    """Call a function, and end this process with the status that Python would end with."""
    status = 70
    try:
        entry_point()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
