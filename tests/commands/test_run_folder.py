"""Name of the run folder, the same in all processes of a run."""

from __future__ import annotations

import pytest

from d2csr.commands.run_folder import requeued, start


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    start.cache_clear()
    yield
    start.cache_clear()


def test_alone_it_is_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(start("%H-%M-%S")) == 8
    monkeypatch.setenv("SLURM_JOB_ID", "17")  # in a job, but not by srun
    assert len(start("%H:%M:%S")) == 8


def test_the_tasks_of_a_step_go_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_JOB_ID", "17"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4")):
        monkeypatch.setenv(name, value)
    assert start("%H-%M-%S") == "slurm-17-0"


def test_an_interactive_shell_in_a_step_of_one_task_goes_by_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the second command in it would take the first one's folder."""
    for name, value in (("SLURM_JOB_ID", "17"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1")):
        monkeypatch.setenv(name, value)
    assert len(start("%H-%M-%S")) == 8


@pytest.mark.parametrize(("count", "again"), [(None, False), ("", False), ("0", False), ("1", True), ("12", True)])
def test_a_job_knows_that_it_is_requeued(monkeypatch: pytest.MonkeyPatch, count: str | None, again: bool) -> None:
    if count is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    assert requeued() is again
