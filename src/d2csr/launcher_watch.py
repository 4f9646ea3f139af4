"""End of the ranks that Lightning started on a machine, after the end of the process that started them.

With gloo a rank notices the end of another one. With NCCL it waits in a collective, which torch ends after the time-out
of the group: 30 minutes in a training, 7 days in an evaluation. torchrun and srun end the ranks that are left.
Lightning's launcher is a part of the first rank of a machine, so it ends the others only while that rank runs.
"""

from __future__ import annotations

import os
import threading
import time

# Environment variable: the number of the process that starts the ranks of this machine.
LAUNCHER = "D2CSR_LAUNCHER"

INTERVAL = 2.0  # seconds between two checks
GRACE = 20.0  # seconds in which a rank may end by itself


def end_with_launcher() -> None:
    """Let this process end at most 22 seconds after the rank by which Lightning started it.

    Every rank has to call this before it joins the process group. The first rank of a machine marks itself, for those
    that it starts.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ:
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[LAUNCHER] = str(os.getpid())
    elif LAUNCHER in os.environ:
        launcher = int(os.environ[LAUNCHER])
        watch = threading.Thread(target=_watch, args=(launcher,), name="launcher-watch", daemon=True)
        watch.start()


def _watch(launcher: int) -> None:
    is_parent = os.getppid() == launcher  # otherwise it has ended already, or a wrapper is in between
    while not _has_ended(launcher, is_parent):
        time.sleep(INTERVAL)
    time.sleep(GRACE)
    os._exit(1)  # the main thread may wait for ever, and could not raise an error


def _has_ended(process: int, is_parent: bool) -> bool:
    if is_parent:
        return os.getppid() != process
    try:
        os.kill(process, 0)  # sends no signal
    except OSError:
        return True
    return False
