"""``torch.hub`` with the entry points of ``hubconf.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import d2csr

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def restored_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def load(name: str, *arguments, **settings) -> torch.nn.Module:
    return torch.hub.load(str(REPOSITORY), name, *arguments, source="local", **settings)


def test_a_checkpoint_is_loaded(golden: Path) -> None:
    model = load("d2csr", golden / "net-x2-f16-b1.pkl")
    lr = torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        assert torch.equal(model(lr), d2csr.load_model(golden / "net-x2-f16-b1.pkl")(lr))
    assert not model.training


def test_the_paper_s_network_is_built() -> None:
    assert sum(parameter.numel() for parameter in load("d2csr_untrained").parameters()) == 5_769_572
    assert load("d2csr_untrained", scale=2, features=8, fusion_features=8, body="edsr").scale == 2


PROCESS = """
import sys, torch
model = torch.hub.load(sys.argv[1], "d2csr_untrained", source="local", features=8, fusion_features=8, body="edsr")
import d2csr
print(d2csr.__file__)
"""


@pytest.mark.slow
def test_the_code_of_the_repository_is_used(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(REPOSITORY)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(REPOSITORY / "src" / "d2csr" / "__init__.py")
