"""The run folder: its name, the same in all processes of a run, and its removal after a failed start.

Processes of torchrun and srun compose its name themselves; those that Lightning starts get it from the first one.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@functools.cache
def start(form: str) -> str:
    """Return the start time by strftime; for the tasks of srun ``slurm-JOB-STEP``, which a requeued job has again."""
    now = datetime.now().strftime(form)
    return _slurm_step() or _torchrun_start(now) or now


# ${start:%Y-%m-%d_%H-%M-%S} in the configuration. At import, since the jobs of a launcher do not pass through main.
OmegaConf.register_new_resolver("start", start, use_cache=True, replace=True)


def requeued() -> bool:
    """Return whether SLURM has requeued the job, after a preemption or at its time limit."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def _slurm_step() -> str | None:
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or "1"
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    several = tasks.isdecimal() and int(tasks) > 1
    return f"slurm-{job}-{step}" if several and job is not None and step is not None else None


def _torchrun_start(now: str) -> str | None:
    """Return the start time from the store of torchrun, which outlives a restart of its processes."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(minutes=5))
    if os.environ.get("RANK") == "0":
        store.compare_set("d2csr/start", "", now)
    return str(store.get("d2csr/start").decode())


# Files that a start writes before its first result: those of Hydra, of the lock and of the loggers.
_OF_THE_START = ("*.log", ".hydra", ".lock", "tensorboard")

_missing: list[Path] = []  # the run folder and its parents that did not exist, the innermost first


def remember_missing(run_dir: Path) -> None:
    """Remember which of the run folder and its parents do not exist yet."""
    run_dir = run_dir.absolute()
    _missing[:] = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]


def keep_run_folder(*_: Any) -> None:
    """Keep the run folder from now on: the training has started."""
    _missing.clear()


@contextmanager
def removed_if_failed() -> Iterator[None]:
    """Remove the folders that this process made, if the command fails and they hold no result."""
    try:
        yield
    except SystemExit as exit_:
        if exit_.code and _missing and not _results(_missing[0]):
            shutil.rmtree(_missing[0], ignore_errors=True)
            for parent in _missing[1:]:
                with suppress(OSError):  # another run is in it
                    parent.rmdir()
        raise


def _results(run_dir: Path) -> list[Path]:
    """Return the files in a run folder that are not of its start."""
    mine = [path for pattern in _OF_THE_START for path in run_dir.glob(pattern)]
    return [path for path in run_dir.rglob("*") if path.is_file() and not {path, *path.parents} & set(mine)]
