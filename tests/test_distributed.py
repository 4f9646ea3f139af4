"""Errors and results of several ranks; ``commands/test_failing_processes.py`` has those of whole trainings."""

from __future__ import annotations

import os
import subprocess

import pytest

from d2csr import distributed
from d2csr.distributed import gather_and_raise, gather_problems, raise_on_all_ranks
from d2csr.errors import ConfigError, DataError


def test_one_rank_raises_each_problem_once():
    gather_and_raise([])
    with pytest.raises(DataError) as error:
        gather_and_raise(["a", "b", "a"])
    assert str(error.value) == "a\nb"


def test_an_error_keeps_its_type():
    @raise_on_all_ranks
    def check(value):
        raise ConfigError(f"{value} is impossible")

    with pytest.raises(ConfigError, match=r"^7 is impossible$"):
        check(7)


def test_one_rank_gets_its_own_problems():
    assert gather_problems(lambda: ("images", {3: "broken"})) == ("images", {3: "broken"})


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1", "SLURM_PROCID": "5"}, 3),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "5"}, 1),
        ({"SLURM_PROCID": "5"}, 5),
    ],
)
def test_without_a_group_the_rank_is_that_of_the_launcher(variables, rank, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.rank() == rank


def test_the_first_process_of_a_second_machine_is_not_rank_zero(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("NODE_RANK", "1")
    assert not distributed.is_rank_zero()


PRELUDE = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from d2csr import distributed
from d2csr.errors import *

rank = int(sys.argv[1])
# The start of the ranks counts to the time-out of the first group, and not to the short one of the second.
for number, seconds in enumerate((60, SECONDS)):
    store = f"{sys.argv[2]}-{number}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=seconds))
    if number == 0:
        dist.barrier()
        dist.destroy_process_group()

def report(function, *args):
    try:
        result = function(*args)
    except Exception as error:
        everywhere = getattr(error, "everywhere", None)
        result = type(error).__name__, str(error), everywhere, distributed.another_rank_reports(error)
    print(repr(result), flush=True)
"""


@pytest.fixture
def two_ranks(python, tmp_path):
    """Run code in two processes of a group, and return the lines that each reports."""

    def run(code, seconds=30):
        code = PRELUDE.replace("SECONDS", str(seconds)) + code
        processes = [
            subprocess.Popen(
                [python, "-c", code, str(rank), f"file://{tmp_path / 'store'}"],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        try:
            outputs = [process.communicate(timeout=120) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], outputs
        return [[eval(line) for line in out.splitlines()] for out, _ in outputs]

    return run


@pytest.mark.slow
def test_a_problem_of_one_rank_is_raised_on_both_and_reported_by_the_first(two_ranks):
    first, second = two_ranks("""
report(distributed.gather_and_raise, ["b", "c"] if rank else ["a", "b"])
report(distributed.gather_and_raise, ["only here"] if rank else [], ConfigError)
report(distributed.gather_and_raise, [])

@distributed.raise_on_all_ranks
def check():
    if rank:
        raise CheckpointError("lost")

report(check)
def problems(find):
    own, found = distributed.gather_problems(find)
    assert own == rank
    return found

report(problems, lambda: (rank, {1: "one", 2: "two on 1"} if rank else {2: "two on 0", 3: "three"}))
""")
    expected = [
        ("DataError", "a\nb\nc", True),
        ("ConfigError", "only here", True),
        None,
        ("CheckpointError", "lost", True),
        {1: "one", 2: "two on 0", 3: "three"},
    ]
    for outcomes, another_reports in ((first, False), (second, True)):
        assert outcomes == [(*item, another_reports) if isinstance(item, tuple) else item for item in expected]


@pytest.mark.slow
def test_a_long_preparation_of_one_rank_does_not_time_out(two_ranks):
    """One rank needs longer than the time-out of the process group."""
    first, second = two_ranks(
        """
@distributed.raise_on_all_ranks
def prepare():
    time.sleep(6 if rank else 0)

report(prepare)
report(lambda: distributed.gather_problems(lambda: (rank, time.sleep(0 if rank else 6) or {rank: "x"}))[1])
""",
        seconds=4,
    )
    assert first == second == [None, {0: "x", 1: "x"}]


@pytest.mark.slow
def test_a_hanging_rank_is_a_time_out(two_ranks):
    first, second = two_ranks(
        """
error = None
try:
    if rank:
        time.sleep(7)
    else:
        distributed.gather_and_raise([])
except RuntimeError as met:
    error = met
print(repr(error is not None and distributed.is_timeout(error)), flush=True)
""",
        seconds=4,
    )
    assert (first, second) == ([True], [False])
