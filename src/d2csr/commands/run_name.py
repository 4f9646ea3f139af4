"""Start time of a run, the same in all of its processes.

Processes that Lightning starts get the run folder from the first one. Those of torchrun and srun compose its name
themselves.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from datetime import datetime, timedelta

from omegaconf import OmegaConf


def register() -> None:
    """Register ``${start:%Y-%m-%d_%H-%M-%S}`` as a resolver."""
    OmegaConf.register_new_resolver("start", start, use_cache=True, replace=True)


@functools.cache
def start(form: str) -> str:
    """Return the start time in a format of strftime; for several tasks of srun ``slurm-JOB-STEP``.

    A requeued SLURM job has the same name and so finds its run folder.
    """
    now = datetime.now().strftime(form)
    return _slurm_step(os.environ) or _torchrun_start(now, os.environ) or now


def requeued() -> bool:
    """Return whether SLURM has requeued the job, after a preemption or at its time limit."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def _slurm_step(environment: Mapping[str, str]) -> str | None:
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID")
    several = tasks.isdecimal() and int(tasks) > 1
    return f"slurm-{job}-{step}" if several and job is not None and step is not None else None


def _torchrun_start(now: str, environment: Mapping[str, str]) -> str | None:
    """Return the start time from the store of torchrun, which outlives a restart of its processes."""
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
