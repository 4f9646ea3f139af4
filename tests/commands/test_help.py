"""Help pages: all settings are named, and every command on them composes."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import d2csr
from d2csr.commands.base import config_dir
from d2csr.commands.targets import flat
from d2csr.models import PathEnsemble
from d2csr.models.bodies import BODIES
from d2csr.renamed import RENAMED

COMMANDS = ("train", "eval", "upscale", "lists", "convert", "export", "plot", "app")

# Set by other keys, or plumbing that a user has no reason to change.
NOT_IN_HELP = {
    *("data.scale", "data.seed", "model.network.scale", "model.optimization", "trainer.optimization"),
    *("model.losses.divergence.branching", "callbacks.best_checkpoint.folder", "callbacks.panels.folder"),
    "callbacks.curves.folder",
}
_GROUPS = ("logger.", "trainer.")  # a trainer's keys are Lightning's


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, "summary"])  # whose keys are those of train
def test_the_help_page_shows_calls_and_keys(command: str, run) -> None:
    finished = run(command, "--help")
    assert finished.returncode == 0
    assert re.search(rf"^  d2csr-{command} \S+=\S+", finished.stdout, re.MULTILINE)
    assert "Powered by Hydra" not in finished.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_page_names_every_key_and_no_other(command: str) -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(command, return_hydra_config=True)
        others = compose(command, overrides=["data=degraded"]) if command == "train" else cfg
    page = cfg.hydra.help.template
    present = {key for key, value in flat(cfg) if not isinstance(value, dict) and not key.startswith("hydra.")}
    present = {key for key in present if not key.rpartition(".")[2].startswith("_")}
    named = set(re.findall(r"(?<![\w.\[/+-])[a-z_]+(?:\.\w+)*(?==)", page))  # KEY=, but not +KEY=
    body = {f"model.network.body.{name}" for name in inspect.signature(BODIES["rcab"]).parameters}
    body |= {name.replace("model.network", "match_to") for name in [*body, "model.network.body.name"]}
    body |= {f"model.network.{name}" for name in inspect.signature(PathEnsemble).parameters}
    nodes = {"experiment", *cfg.hydra.runtime.choices, "hydra.run.dir"}
    mentioned = named | set(re.findall(r"[a-z_]+(?:\.\w+)+", page))
    assert not {key for key in present - mentioned - NOT_IN_HELP if not key.startswith(_GROUPS)}
    assert not {
        key
        for key in named - present - body - nodes - {key for key, _ in flat(others)}
        if "._target_" not in key and "." in key
    }


@pytest.mark.slow
def test_the_help_page_names_the_short_forms(run) -> None:
    page = run("train", "--help").stdout
    for short in RENAMED:
        if re.fullmatch(r"model\.(features|branching|fusion_features|groups|blocks|reduction)", short):
            assert re.search(rf"\b{re.escape(short)}\b", page)
    assert "--multirun" in page


@pytest.mark.parametrize("command", COMMANDS)
def test_the_version_is_that_of_the_package(command: str, call) -> None:
    finished = call(command, "--version")
    assert (finished.returncode, finished.stdout) == (0, f"d2csr {d2csr.__version__}\n")


@pytest.mark.slow
def test_the_help_page_names_every_experiment(run) -> None:
    page = run("train", "--help").stdout
    for experiment in ("realsr_x2", "realsr_x3", "realsr_x4", "drealsr_x4", "d2crealsr_x8", "demo"):
        assert experiment in page


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from d2csr.commands.train import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "d2csr-train" in finished.stdout
