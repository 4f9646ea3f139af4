"""The GPU benchmark: all of it in a small size on a CPU, and its checks on a GPU."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks.gpu.__main__ import PARTS, _seconds
from benchmarks.gpu.bench import FAILED, PASSED, UNMEASURED, Bench, Check, Part
from benchmarks.gpu.build import Chronometer
from benchmarks.gpu.loading import _busy, _Epochs
from benchmarks.gpu.ranks import reduced_bytes
from benchmarks.gpu.steps import Timed
from packaging.requirements import Requirement

from warm_python import warm_python

ROOT = Path(__file__).parents[2]
PACKAGES = [
    *("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf"),
    *("pillow", "platformdirs", "filelock", "tqdm", "numpy"),
]
# Python imports this module first in each process: other packages are hidden, and so is the network.
HIDING = """
import json, os, socket, sys
from importlib.machinery import PathFinder

HIDDEN, PACKAGES = map(set, json.loads(os.environ["HIDDEN"]))

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

    @staticmethod
    def find_distributions(*args, **kwargs):
        return (found for found in PathFinder.find_distributions(*args, **kwargs) if found.name not in PACKAGES)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
connect = socket.socket.connect

def connect_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"no network: {address}")
    return connect(self, address)

socket.socket.connect = connect_here
"""
# On a CPU these say something; all others need a GPU, or several processes.
MET_ON_A_CPU = {
    *(name for part in PARTS if part.name == "golden" for name in part.checks),
    *("validation.compilation", "resuming.bits", "steps.recompilations", "images.sizes", "images.strips"),
    *(f"failures.nan.{mode}" for mode in ("alternating", "joint", "sequential", "skip")),
    *("failures.memory", "loading.device_cache", "loading.same_batch", "combinations.recompilations"),
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def hidden() -> tuple[list[str], list[str]]:
    """Return the installed modules and packages that are none of :data:`PACKAGES`, or of those that they need."""
    needed, waiting = set(), list(PACKAGES)
    while waiting:
        name = plain(waiting.pop())
        if name in needed:
            continue
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        needed.add(name)
        found = map(Requirement, lines)
        waiting += [r.name for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]
    needed.add("d2csr")
    modules = metadata.packages_distributions().items()
    others = [module for module, names in modules if not any(plain(name) in needed for name in names)]
    return others, [found.name for found in metadata.distributions() if plain(found.name) not in needed]


def run(
    folder: Path,
    *arguments: str,
    seconds: float = 1500,
    python: str = sys.executable,
    command: tuple[str, ...] = ("-m", "benchmarks.gpu"),
    **extra: str,
) -> tuple[dict, str, int]:
    """Run the benchmark; return its JSON, its Markdown and its status."""
    path = os.pathsep.join([str(folder), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}
    whole = [python, *command, "--output", str(folder / "out"), *arguments]
    done = subprocess.run(
        whole, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert (folder / "out.json").is_file(), done.stdout + done.stderr
    return json.loads((folder / "out.json").read_text()), (folder / "out.md").read_text(), done.returncode


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_with_the_fewest_packages_and_no_network(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    monkeypatch.setenv("HIDDEN", json.dumps(hidden()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "src")]))
    with warm_python(tmp_path) as python:  # an interpreter that has imported these packages alone, for ten processes
        found, text, status = run(tmp_path, "--device", "cpu", "--tiny", python=python)
    checks = {check["name"]: check for check in found["checks"]}
    assert list(checks) == [name for part in PARTS for name in part.checks]
    assert {name for name, check in checks.items() if check["status"] == FAILED} == set()
    assert {name for name, check in checks.items() if check["status"] == PASSED} == MET_ON_A_CPU
    assert all(check["detail"] != "not reached" for check in checks.values())
    assert {part["outcome"] for part in found["parts"].values()} == {"done"}
    assert len(found["parts"]) == len(PARTS)
    assert status == 0
    assert all(f"| {name} |" in text for name in checks)
    assert all(table["rows"] and f"### {table['title']}" in text for table in found["tables"])


# Runs the benchmark, of which the part "waits" ends all use of the GPU in its process.
BROKEN = """
import benchmarks.gpu.bench
from benchmarks.gpu import waits, __main__

def free(device):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def run(bench):
    bench.judge("waits.joint.off", True, "0 in 5 steps")
    bench.table("Host synchronisations").rows.append({"mode": "joint"})
    benchmarks.gpu.bench.free = free

waits.PART.run = run
__main__.main()
"""


@pytest.mark.slow
def test_after_an_error_that_ends_all_use_of_the_gpu_a_new_process_runs_the_rest(python, tmp_path):
    names = ["--only", "waits", "quality"]
    found, text, status = run(tmp_path, "--device", "cpu", "--tiny", *names, python=python, command=("-c", BROKEN))
    assert {name: part["outcome"] for name, part in found["parts"].items()} == {"waits": "done", "quality": "done"}
    assert "illegal memory access" in found["errors"][0]
    checks = {check["name"]: check["detail"] for check in found["checks"]}
    assert list(checks) == [name for part in PARTS if part.name in names for name in part.checks]
    assert checks["waits.joint.off"] == "0 in 5 steps"
    assert "off" in checks["quality.bf16"]
    assert "### Host synchronisations" in text
    assert "### Mean losses" in text
    assert status == 0


# Supervises the benchmark, whose part "waits" ends its process by a signal.
CRASHING = """
import os, signal, sys
from benchmarks.gpu import waits, __main__

waits.PART.run = lambda bench: os.kill(os.getpid(), signal.SIGSEGV)
if "--supervised" in sys.argv:
    __main__.main()
sys.exit(__main__.supervise(__main__._arguments(), ["-c", os.environ["CRASHING"]]))
"""


@pytest.mark.slow
def test_after_a_crash_a_new_process_runs_the_rest(python, tmp_path):
    names = ["--only", "waits", "quality"]
    code = {"command": ("-c", CRASHING), "CRASHING": CRASHING}
    found, _, status = run(tmp_path, "--device", "cpu", "--tiny", *names, python=python, **code)
    outcomes = {name: part["outcome"] for name, part in found["parts"].items()}
    assert outcomes == {"waits": "the process ended with signal 11", "quality": "done"}
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["waits.joint.off"]["status"] == FAILED
    assert "off" in checks["quality.bf16"]["detail"]
    assert status == 1


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("part", [part.name for part in PARTS])
def test_on_a_gpu(part, tmp_path):
    found, _, status = run(tmp_path, "--device", "cuda", "--devices", "1", "--tiny", "--only", part)
    assert [check for check in found["checks"] if check["status"] == FAILED] == []
    assert found["parts"][part]["outcome"] == "done"
    assert status == 0


@pytest.fixture
def bench(tmp_path):
    """A benchmark of a CPU, and a function that runs a part of it."""
    made = Bench(torch.device("cpu"), 1, True, tmp_path)

    def run_part(function, *names, seconds=100.0):
        part = Part("part", seconds, dict.fromkeys(names, "a requirement"), function)
        made.checks = {name: Check(name, "a requirement") for name in names}
        made.run(part, seconds)
        return {name: check.status for name, check in made.checks.items()}

    made.run_part = run_part
    return made


def test_an_error_ends_its_part_alone_and_fails_what_it_has_not_reached(bench):
    def broken(bench):
        bench.judge("a", True, "well")
        raise KeyError("gone")

    assert bench.run_part(broken, "a", "b") == {"a": PASSED, "b": FAILED}
    assert "KeyError" in bench.parts["part"]["outcome"]
    assert "gone" in bench.errors[0]
    assert bench.failed() == ["b"]


def test_a_part_that_takes_too_long_is_stopped(bench):
    begun = time.monotonic()
    assert bench.run_part(lambda bench: time.sleep(30), "a", seconds=0.1) == {"a": UNMEASURED}
    assert time.monotonic() - begun < 20
    assert "stopped" in bench.checks["a"].detail


def test_a_part_is_stopped_within_code_that_turns_exceptions_into_others(bench):
    def stubborn(bench):
        for _ in range(100):
            with contextlib.suppress(Exception):
                time.sleep(0.3)
        bench.judge("a", True, "slow")

    assert bench.run_part(stubborn, "a", seconds=0.1) == {"a": UNMEASURED}


def test_a_part_without_time_is_not_begun(bench):
    assert bench.run_part(lambda bench: bench.judge("a", True, "begun"), "a", seconds=-3.0) == {"a": UNMEASURED}


def test_the_time_of_each_part(tmp_path):
    on_gpu = Bench(torch.device("cuda"), 1, False, tmp_path)
    given = {part.name: _seconds(part, PARTS[number + 1 :], 300.0, on_gpu) for number, part in enumerate(PARTS)}
    later = sum(part.seconds for part in PARTS if part.name in ("loading", "images"))
    assert given["golden"] == 60
    assert given["combinations"] == 300 - later
    assert given["images"] == 300
    assert _seconds(PARTS[0], PARTS[1:], 7.0, on_gpu) == 7


def test_an_error_in_a_row_is_recorded_and_the_next_row_follows(bench):
    def rows(bench):
        table = bench.table("rows")
        for number in range(3):
            table.rows.append(row := {"number": number})
            with bench.guard(row, f"row {number}"):
                if number == 1:
                    raise RuntimeError("the backend raised:\nFailed to find a C compiler")
                bench.judge(f"row {number}", True, "well")

    assert bench.run_part(rows, "row 0", "row 1", "row 2") == {"row 0": PASSED, "row 1": FAILED, "row 2": PASSED}
    assert "| 1 | RuntimeError: the backend raised: Failed to find a C compiler |" in bench.as_markdown({})


def test_a_requirement_that_is_judged_several_times_has_to_be_met_each_time(bench):
    def several(bench):
        for met in (True, False, True):
            bench.judge("a", met, str(met))

    assert bench.run_part(several, "a") == {"a": FAILED}
    assert bench.checks["a"].detail == "False"


def test_requirements_of_a_gpu_are_unmeasured_on_a_cpu(bench):
    assert bench.run_part(lambda bench: bench.judge_on_gpu("a", True, "3 ms"), "a") == {"a": UNMEASURED}
    assert bench.checks["a"].detail == "needs a GPU; here: 3 ms"


def test_times_of_tiny_networks_on_a_gpu_are_not_judged(bench):
    bench.device = torch.device("cuda")
    bench.checks = {name: Check(name, "a requirement") for name in ("a", "b")}
    bench.judge_at_full_size("a", False, "0.5 times")
    bench.judge_on_gpu("b", True, "0 waits")
    bench.tiny = False
    assert [check.status for check in bench.checks.values()] == [UNMEASURED, PASSED]
    assert bench.checks["a"].detail == "needs the full size; here: 0.5 times"
    bench.judge_at_full_size("a", False, "0.5 times")
    assert bench.checks["a"].status == FAILED


def test_a_candidate_is_timed_once_or_again_if_there_was_no_time(bench, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.steps._matrix_products", lambda bench: {})
    monkeypatch.setattr("benchmarks.gpu.steps._step_flops", lambda bench, patch: {"joint": 1.0})
    timed = []

    def time_steps(bench, *names, **settings):
        timed.append(names[:2])
        return Chronometer(bench, 1, 1, 1.0)

    monkeypatch.setattr("benchmarks.gpu.steps.time_steps", time_steps)
    bench._deadline = float("inf")
    early = Timed(bench)
    for precision, note in (("bf16", "out of time"), ("tf32", "RuntimeError: broken")):
        early.rows.append({"batch": 2, "step": "joint", "precision": precision, "compile": "eager", "note": note})
    late = Timed(bench)
    for precision in ("bf16", "tf32", "bf16"):
        late.add(2, "joint", precision, None)
    assert timed == [("joint", "bf16")]
    assert [row["precision"] for row in late.rows] == ["tf32", "bf16"]


def test_the_last_twelve_steps_of_the_second_epoch_are_profiled(bench, monkeypatch):
    class Profiler:
        def __init__(self, **_):
            self.steps = 0

        def __enter__(self):
            running.append(self)

        def __exit__(self, *_):
            running.remove(self)
            profiled.append(self)

        def events(self):
            return []

    running, profiled = [], []
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    bench.device = torch.device("cuda")
    epochs = _Epochs(bench, 4)
    for epoch in range(4):
        trainer = SimpleNamespace(current_epoch=epoch, num_training_batches=36)
        epochs.on_train_epoch_start(trainer)
        for number in range(36):
            epochs.on_train_batch_start(trainer, None, {"lr": torch.zeros(1)}, number)
            for profiler in running:
                profiler.steps += 1
            epochs.on_train_batch_end()
        epochs.on_train_epoch_end()
    assert [profiler.steps for profiler in profiled] == [12]
    assert not running
    assert epochs.busy == 0
    assert epochs.wall > 0


def test_the_gpu_is_busy_while_any_kernel_runs():
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    spans = [(cuda, 0, 10), (cuda, 5, 20), (cuda, 6, 8), (cpu, 20, 90), (cuda, 100, 130)]
    events = [SimpleNamespace(device_type=k, time_range=SimpleNamespace(start=a, end=b)) for k, a, b in spans]
    assert _busy(SimpleNamespace(events=lambda: events)) == pytest.approx(50e-6)


def test_bytes_of_reductions_in_a_trace():
    gloo = [
        {"name": "gloo:all_reduce", "args": {"Input Dims": [[110]], "Input type": ["float"]}},
        {"name": "gloo:all_reduce", "args": {"Input Dims": [[7, 3]], "Input type": ["c10::BFloat16"]}},
        {"name": "gloo:broadcast", "args": {"Input Dims": [[999]], "Input type": ["float"]}},
        {"name": "aten::sum"},
    ]
    assert reduced_bytes(gloo) == 4 * 110 + 2 * 21
    nccl = [
        {"name": "record_param_comms", "args": {"Collective name": "allreduce", "In msg nelems": 50, "dtype": "Float"}},
        {"name": "record_param_comms", "args": {"Collective name": "broadcast", "In msg nelems": 70, "dtype": "Float"}},
    ]
    assert reduced_bytes(nccl) == 200
