"""Two processes on gloo train as one, in every mode."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ranks.py")
MODES = ["alternating", "joint", "sequential"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks():
    """The script as a module, to do the same in this process."""
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of the two processes has after each training."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", SCRIPT, folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "did not find any unused parameters" not in done.stderr
    return lambda name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(ranks):
    """The same training by one process with the whole batches."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda name, **settings: ranks.train(**{**ranks.TRAININGS[name], "devices": 1, **settings})
    torch.set_num_threads(threads)


def furthest(first, second):
    assert first["weights"].keys() == second["weights"].keys()
    return max((value - second["weights"][name]).abs().max().item() for name, value in first["weights"].items())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_both_processes_hold_the_same_weights(mode, scope, two):
    first, second = two(f"{mode}-{scope}")
    assert furthest(first, second) == 0


@pytest.mark.parametrize(
    ("mode", "what"),
    # alternating refuses to accumulate
    [(m, w) for m in MODES for w in ("image", "clipped", "accumulated") if (m, w) != ("alternating", "accumulated")],
)
def test_by_the_scope_image_they_are_those_of_one_process_with_the_whole_batch(mode, what, two, alone):
    assert furthest(two(f"{mode}-{what}")[0], alone(f"{mode}-{what}")) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_by_the_scope_batch_each_process_standardises_over_its_own_share(mode, two, alone):
    assert furthest(two(f"{mode}-batch")[0], alone(f"{mode}-batch")) > 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_a_bad_loss_in_one_process_is_skipped_by_both(mode, two, alone):
    first, second = two(f"{mode}-skip")
    assert furthest(first, second) == 0
    assert furthest(first, alone(f"{mode}-skip", bad=None, without=3)) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_a_bad_loss_in_one_process_ends_both_before_the_step(mode, two):
    first, second = two(f"{mode}-raise")
    assert first["error"] == second["error"]
    assert "at step 3 (epoch 0): process 1, batch 3: nan." in first["error"]
    assert furthest(first, second) == 0
    assert all(torch.isfinite(value).all() for value in first["weights"].values())
