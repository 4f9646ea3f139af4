"""Fixtures that run the commands in an empty folder: in their own process or, faster, in this one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra


@dataclass(frozen=True)
class Finished:
    """What is left of a command: its exit status and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Finished]

MODULES = {"lists": "make_lists"}  # the others have the names of their commands


@pytest.fixture
def run(python: str, tmp_path: Path) -> Run:
    """Return a function that runs ``d2csr-NAME`` with arguments in a process of its own."""

    def run_command(name: str, *arguments: str, **environment: str) -> Finished:
        finished = subprocess.run(
            [python, "-m", f"d2csr.commands.{MODULES.get(name, name)}", *arguments],
            cwd=tmp_path,
            env={**os.environ, "HYDRA_FULL_ERROR": "0", **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    return run_command


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that calls the same entry point in this process, which saves seconds of imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))  # plugins add the working folder

    def call_command(name: str, *arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", [f"d2csr-{name}", *arguments])
        capfd.readouterr()
        status = 0
        try:
            importlib.import_module(f"d2csr.commands.{MODULES.get(name, name)}").main()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            GlobalHydra.instance().clear()
            forget_modules_of(tmp_path)
        out, err = capfd.readouterr()
        return Finished(status, out, err)

    return call_command


def forget_modules_of(folder: Path) -> None:
    """Let a plugin of the test's folder be imported, and register its definitions, again."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]
