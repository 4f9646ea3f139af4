"""Trainings of several processes with each launcher, and jobs that are requeued."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from d2csr.commands.base import config_dir
from d2csr.training.fit import disable_requeueing
from pair_files import write_pairs

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.sbatch"
TINY = [
    *("data=pairs", "scale=2", "data.train_list=pairs.txt", "data.patch_size=8", "data.batch_size=1"),
    *("data.patches_per_image=5", "model.features=16", "model.groups=1", "model.blocks=1", "model.fusion_features=16"),
    *("data.num_workers=0", "optimization=joint", "trainer.check_val_every_n_epoch=2", "trainer.log_every_n_steps=2"),
    *("trainer.accelerator=cpu", "checkpoint.every_n_steps=5"),
]
QUIET = "trainer.enable_progress_bar=false"
# What SLURM would have to be for this: it starts two tasks, hands signals on, and ends with the highest status.
SRUN = """#!{real}
import os, signal, subprocess, sys
step = {{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}}
assert sys.argv[1:3] == ["--kill-on-bad-exit=1", "d2csr-train"]
command = [{python!r}, "-m", "d2csr.commands.train", *sys.argv[3:]]
tasks = [
    subprocess.Popen(command, env={{**os.environ, **step, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}})
    for n in range(2)
]
signal.signal(signal.SIGTERM, lambda number, frame: [task.send_signal(number) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "d2csr",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "127.0.0.1",
}


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


class Started:
    """A process in a session of its own, of which nothing is left at the end."""

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", **environment},
                start_new_session=True,
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self) -> int:
        return self.process.wait(timeout=240)

    def text(self) -> str:
        return self.log.read_text()

    def wait_for(self, path: Path) -> None:
        end = time.monotonic() + 240
        while not path.exists():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < end, f"waited in vain for {path}"
            time.sleep(0.05)

    def children(self) -> list[int]:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in listed.stdout.split()]


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        measured = ("train/samples_per_second", "train/memory_gb")
        return [{k: v for k, v in row.items() if k not in measured} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def by_torchrun(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two processes that torchrun starts, without a folder named: what it leaves below outputs/train."""
    folder = tmp_path_factory.mktemp("torchrun")
    write_pairs(folder, 4, 16, 14, "pairs.txt")
    launcher = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [*TINY, QUIET, "trainer=ddp_cpu", "trainer.max_epochs=3"]
    with Started(folder, *launcher, "-m", "d2csr.commands.train", *arguments) as started:
        assert started.wait() == 0, started.text()
    return folder / "outputs" / "train"


@pytest.mark.slow
def test_the_processes_of_torchrun_use_one_run_folder(by_torchrun: Path) -> None:
    [run] = by_torchrun.iterdir()
    assert (run / ".hydra" / "config.yaml").is_file()
    assert last(run)["global_step"] == 30
    assert len(last(run)["position"]["random"]) == 2


@pytest.mark.slow
def test_a_job_saves_before_its_end_is_requeued_and_resumes(by_torchrun: Path, python: str, tmp_path: Path) -> None:
    """The script as it is documented, with stand-ins for srun and scontrol."""
    write_pairs(tmp_path, 4, 16, 14, "pairs.txt")
    commands = tmp_path / "bin"
    commands.mkdir()
    srun, scontrol = SRUN.format(real=sys.executable, python=python), '#!/bin/sh\necho "$@" >>queue\n'
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {**SLURM, "PATH": f"{commands}:{os.environ['PATH']}"}
    command = ["bash", str(SCRIPT), "run", *TINY]

    with Started(tmp_path, *command, "trainer.max_epochs=1000", **environment) as job:
        job.wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
        os.kill(job.process.pid, signal.SIGUSR1)
        assert job.wait() == 143, job.text()
    text = job.text()
    assert text.count("stopped by SIGTERM after step") == 1
    assert "Traceback" not in text
    assert (tmp_path / "queue").read_text() == "requeue 4711\n"
    stopped = last(tmp_path / "run")["position"]

    epochs = max(3, stopped["epoch"] + 1)  # on a fast machine it may have come far
    with Started(tmp_path, *command, f"trainer.max_epochs={epochs}", **environment, SLURM_RESTART_COUNT="1") as job:
        assert job.wait() == 0, job.text()
    assert f"epoch {stopped['epoch']}, batch {stopped['batch']}" in job.text()
    assert (tmp_path / "queue").read_text() == "requeue 4711\n", "a finished job does not come back"
    assert last(tmp_path / "run")["position"]["epoch"] == epochs
    if epochs == 3:
        [expected] = by_torchrun.iterdir()
        for name, value in last(expected)["state_dict"].items():
            assert torch.equal(last(tmp_path / "run")["state_dict"][name], value), name
        assert rows(tmp_path / "run") == rows(expected)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_with_one_message(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4, 16, 14, "pairs.txt")
    arguments = [*TINY, QUIET, "trainer=ddp_cpu", "trainer.max_epochs=1000", "hydra.run.dir=run"]
    with Started(tmp_path, sys.executable, "-m", "d2csr.commands.train", *arguments) as started:
        started.wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
        [second] = started.children()
        os.kill(second, signal.SIGTERM)
        assert started.wait() == 143, started.text()
    text = started.text()
    assert text.count("stopped by SIGTERM after step") == 1
    assert "Traceback" not in text
    position = last(tmp_path / "run")["position"]
    assert f"after step {position['step']};" in text


STOPPED_IN_VALIDATION = """
import os, signal
from d2csr.training import D2CSRTask

validation_step = D2CSRTask.validation_step

def stopping(self, *args):
    if self.global_rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return validation_step(self, *args)

D2CSRTask.validation_step = stopping

from d2csr.commands.train import main

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_signal_in_a_validation_of_two_processes_ends_both_after_it(python: str, tmp_path: Path) -> None:
    """The first process saves at once, alone; best.ckpt and the last save are those of both."""
    write_pairs(tmp_path, 4, 16, 14, "pairs.txt")
    (tmp_path / "stopped.py").write_text(STOPPED_IN_VALIDATION)
    arguments = [*TINY, QUIET, "trainer=ddp_cpu", "trainer.max_epochs=1000", "hydra.run.dir=run"]
    with Started(tmp_path, python, "stopped.py", *arguments) as started:
        assert started.wait() == 143, started.text()
    assert started.text().count("stopped by SIGTERM after step") == 1
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    position = last(tmp_path / "run")["position"]
    assert position["closed"]
    assert len(position["random"]) == 2


@pytest.mark.slow
def test_submitit_runs_a_sweep_and_requeues_a_job(tmp_path: Path) -> None:
    """By its local executor, which knows a queue too."""
    write_pairs(tmp_path, 4, 16, 14, "pairs.txt")
    arguments = [*TINY, QUIET, f"data.train_list={tmp_path / 'pairs.txt'}", "trainer=cpu", "hydra.sweep.dir=sweep"]
    stopping = [*arguments, "hydra/launcher=submitit_local", "seed=0,1", "trainer.max_epochs=2", "resume=auto"]
    # The job stops itself in its 13th batch, as SLURM would by SIGUSR2, if it is the first one and not started again.
    patch = tmp_path / "sitecustomize.py"
    patch.write_text(
        "import os, signal, sys\n"
        "if 'submitit.core._submit' in ' '.join(sys.orig_argv):\n"
        "    import d2csr.training\n"
        "    whole = d2csr.training.JointTask.training_step\n"
        "    def step(self, batch, batch_idx):\n"
        "        run = self.trainer.default_root_dir\n"
        "        if self.global_step == 12 and run.endswith('0') and not os.path.exists('stopped'):\n"
        "            open('stopped', 'w').close()\n"
        "            os.kill(os.getpid(), signal.SIGUSR2)\n"
        "        return whole(self, batch, batch_idx)\n"
        "    d2csr.training.JointTask.training_step = step\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Started(tmp_path, sys.executable, "-m", "d2csr.commands.train", *stopping, PYTHONPATH=path) as started:
        assert started.wait() == 0, started.text()
    assert (tmp_path / "stopped").exists()
    logs = "".join(log.read_text() for log in (tmp_path / "sweep" / ".submitit").rglob("*.out"))
    assert logs.count("stopped by SIGUSR2 after step 13;") == 1
    assert len([line for line in logs.splitlines() if line.startswith("submitit") and "Requeued job" in line]) == 1
    assert "epoch 0, batch 13" in logs
    for number in (0, 1):
        run = tmp_path / "sweep" / str(number)
        assert last(run)["global_step"] == 40
        assert OmegaConf.load(run / ".hydra" / "config.yaml").seed == number
        assert [int(row["step"]) for row in rows(run) if row["train/fusion"]] == list(range(1, 40, 2))


# What can be known without a cluster.


def composed(*overrides: str) -> Any:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


def test_the_job_asks_for_as_many_tasks_as_the_trainer_has_devices() -> None:
    cfg = composed(
        "hydra/launcher=submitit_slurm", "trainer=slurm", "trainer.devices=4", "trainer.num_nodes=2", "data=demo"
    )
    HydraConfig.instance().set_config(cfg)
    launcher = instantiate(cfg.hydra.launcher)
    expected = {"nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4, "signal_delay_s": 300, "max_num_timeout": 1000}
    assert {name: launcher.params[name] for name in expected} == expected
    assert type(launcher).__name__ == "SlurmLauncher"


def test_submitit_takes_all_parameters_of_the_preset(tmp_path: Path) -> None:
    """As Hydra's launcher hands them on; the script that it would submit asks for what was meant."""
    submitit = pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string

    cfg = composed("hydra/launcher=submitit_slurm", "trainer=slurm", "trainer.devices=4", "hydra.launcher.partition=a")
    settings = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(settings, dict)
    for name in ("_target_", "submitit_folder", "max_num_timeout"):
        del settings[name]
    general = {"nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min", "name"}
    general |= {"stderr_to_stdout"}
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="debug")
    executor.update_parameters(**{k if k in general else f"slurm_{k}": v for k, v in settings.items()})
    sbatch = {k: v for k, v in settings.items() if k not in ("stderr_to_stdout", "name")}
    names = submitit.SlurmExecutor._equivalence_dict()
    named = {names.get(k, k): v for k, v in sbatch.items() if v is not None}
    script = _make_sbatch_string(command="true", folder=tmp_path, map_count=20, **named)
    for line in ("--nodes=1", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=6", "--time=1440"):
        assert f"#SBATCH {line}\n" in script
    for line in ("--partition=a", "--signal=USR2@300", "--array=0-19%16"):
        assert f"#SBATCH {line}\n" in script


@pytest.mark.parametrize(("rank", "local"), [(0, 0), (5, 1)])
def test_ranks_are_those_of_slurm_and_lightning_does_not_requeue(
    monkeypatch: pytest.MonkeyPatch, rank: int, local: int
) -> None:
    variables = {**SLURM, "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # put back what the connector changes
    for name, value in {**variables, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local)}.items():
        monkeypatch.setenv(name, value)
    overrides = ["trainer=slurm", "trainer.accelerator=cpu", "trainer.devices=4", "trainer.num_nodes=2"]
    trainer = instantiate(composed(*overrides).trainer, logger=False, enable_checkpointing=False, _convert_="all")
    disable_requeueing(trainer)
    environment = trainer.strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert environment.auto_requeue is False
    assert environment.creates_processes_externally
    assert (environment.world_size(), environment.global_rank(), environment.local_rank()) == (8, rank, local)
    assert trainer.world_size == 8


@pytest.mark.parametrize("devices", ["-1", "auto"])
def test_a_job_without_a_number_of_devices_is_refused(call, devices: str) -> None:
    finished = call("train", "data=demo", "hydra/launcher=submitit_slurm", f"trainer.devices={devices}")
    assert finished.returncode == 1
    assert f"trainer.devices={devices}: a job has to ask for a number of devices" in finished.stderr


def test_a_machine_without_slurm_is_named_and_no_folder_is_made(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    finished = call("train", "data=demo", "hydra/launcher=submitit_slurm", "trainer.devices=4")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: hydra/launcher: no srun here")
    assert finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_submitit_the_extra_is_named(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finished = call("train", "data=demo", "hydra/launcher=submitit_local")
    assert finished.returncode == 1
    assert "pip install 'd2csr[slurm]'" in finished.stderr
