from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import d2csr
from d2csr.environment import environment, environment_lines


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    return subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit, as the working folder."""
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("first\n")
    git(tmp_path, "add", "notes.txt")
    git(tmp_path, "commit", "-q", "-m", "First")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_versions_and_devices_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/d2csr-train", "data.root=/data/RealSR(V3)", "scale=4"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["command"] == "d2csr-train 'data.root=/data/RealSR(V3)' scale=4"
    assert found["host"] == platform.node()
    expected = {"d2csr": d2csr.__version__, "numpy": np.__version__, "python": platform.python_version()}
    assert expected.items() <= found["versions"].items()
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert len(found["devices"]) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()


def test_the_commit_of_the_working_folder_is_named_and_whether_a_file_has_changed(checkout):
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "untracked.txt").touch()
    assert environment()["git"][0] == {"folder": str(checkout), "commit": commit, "dirty": False}
    (checkout / "notes.txt").write_text("second\n")
    found = environment()
    assert found["git"][0] == {"folder": str(checkout), "commit": commit, "dirty": True}
    assert f"git: {commit} with changes in {checkout}" in environment_lines(found)


@pytest.mark.parametrize("git_program", ["exit 3", "sleep 60", "printf '\\377'", None])
def test_without_a_working_git_no_commit_is_named(checkout, monkeypatch, git_program):
    programs = checkout / "bin"
    programs.mkdir()
    if git_program is not None:
        (programs / "git").write_text(f"#!/bin/sh\nexec 2>&-\nPATH=/usr/bin:/bin\n{git_program}\n")
        (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("d2csr.environment._GIT_TIMEOUT", 0.2)
    assert environment()["git"] == []
