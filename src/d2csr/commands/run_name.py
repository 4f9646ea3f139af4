"""A name for a run that all of its processes arrive at, whoever started them.

A process that Lightning starts is told the run folder by the first one. Those of torchrun and srun each compose a
folder of their own, so what goes into its name has to be the same for all.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from datetime import datetime, timedelta

from omegaconf import OmegaConf


def register() -> None:
    """Make ``${start:%Y-%m-%d_%H-%M-%S}`` known to the configuration."""
    OmegaConf.register_new_resolver("start", start, use_cache=True, replace=True)


@functools.cache
def start(form: str) -> str:
    """Return the time at which the run began; of a step of several tasks that srun started, ``slurm-JOB-STEP``.

    The latter stays when SLURM puts a job into its queue again, so that the job finds what it has left.

    Args:
        form: of the time, as strftime takes it.
    """
    now = datetime.now().strftime(form)
    return _slurm_step(os.environ) or _told_by_torchrun(now, os.environ) or now


def requeued() -> bool:
    """Say whether SLURM has put the job into its queue again, after a preemption or at its time limit."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def _slurm_step(environment: Mapping[str, str]) -> str | None:
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID")
    if job is None or step is None or not tasks.isdecimal() or int(tasks) < 2:
        return None
    return f"slurm-{job}-{step}"


def _told_by_torchrun(now: str, environment: Mapping[str, str]) -> str | None:
    """Agree by way of the store that torchrun keeps for its processes, also where it starts them anew."""
    if "TORCHELASTIC_RUN_ID" not in environment or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore

    store = TCPStore(
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(minutes=5),
    )
    if environment.get("RANK") == "0":
        store.compare_set("d2csr/start", "", now)
    return str(store.get("d2csr/start").decode())
