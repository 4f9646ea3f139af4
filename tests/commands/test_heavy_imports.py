"""Imports of torch without garbage collection; each case is a process of its own, since both last until its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A module that notes the state of the collector at its import.
MODULE = """
import gc
ENABLED = gc.isenabled()
if {fails}:
    raise ImportError("a missing package")
"""


def run(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import gc\nfrom d2csr.commands.heavy_imports import import_heavy\n" + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_collector_is_paused_for_the_import_alone_and_then_ignores_what_exists(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(MODULE.format(fails=False))
    code = (
        "before = gc.get_freeze_count()\n"
        "import_heavy('heavy')\n"
        "import heavy\n"
        "frozen = gc.get_freeze_count()\n"
        "later = [[] for _ in range(1000)]\n"
        "import_heavy('heavy')\n"  # the next job of a sweep: nothing of the one before becomes permanent
        "print(before, heavy.ENABLED, gc.isenabled(), frozen > 1000, gc.get_freeze_count() <= frozen)\n"
    )
    assert run(tmp_path, code) == "0 False True True True\n"


def test_a_failed_import_is_raised_and_leaves_the_collector_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(MODULE.format(fails=True))
    code = (
        "for enabled in (True, False):\n"
        "    gc.enable() if enabled else gc.disable()\n"
        "    try: import_heavy('heavy')\n"
        "    except ImportError as error: print(error, gc.isenabled())\n"
    )
    assert run(tmp_path, code) == "a missing package True\na missing package False\n"


def test_at_the_exit_garbage_is_collected_and_all_else_is_not_traversed(tmp_path: Path) -> None:
    code = (
        "import atexit\n"
        "atexit.register(lambda: print('collector ignores', gc.get_freeze_count() > before))\n"  # runs last
        "import_heavy('json')\n"
        "class Workers:\n"
        "    def __init__(self): self.me = self\n"
        "    def __del__(self): print('workers end')\n"
        "kept = [[number] for number in range(1000)]\n"
        "before = gc.get_freeze_count() + 1000\n"
        "Workers()\n"
    )
    assert run(tmp_path, code) == "workers end\ncollector ignores True\n"


@pytest.mark.slow
def test_every_command_that_needs_torch_imports_it_so(tmp_path: Path) -> None:
    (tmp_path / "x2.ckpt").touch()
    (tmp_path / "lr.png").touch()
    commands = {
        "train": ["+experiment=demo"],
        "eval": ["ckpt=x2.ckpt"],
        "upscale": ["ckpt=x2.ckpt", "input=lr.png", "output=sr"],
        "export": ["ckpt=x2.ckpt", "output=x2.onnx"],
        "convert": ["source=x2.ckpt", "output=x2.safetensors"],
        "summary": ["scale=4"],
        "figure": ["ckpt=x2.ckpt", "image=lr.png", "crops=[[0,0,8]]", "output=figure.pdf"],
    }
    code = (
        "import importlib, sys\n"
        "from d2csr.commands import heavy_imports\n"
        "def imported(name):\n"
        "    print(sys.argv[0], 'torch' in sys.modules, name.startswith('d2csr.'), file=sys.__stdout__)\n"
        "    sys.exit(3)\n"
        "heavy_imports.import_module = imported\n"
        f"for command, arguments in {commands!r}.items():\n"
        "    sys.argv[:] = [command, *arguments]\n"
        "    try: importlib.import_module(f'd2csr.commands.{command}').main()\n"
        "    except SystemExit as exit_: assert exit_.code == 3, command\n"
    )
    assert run(tmp_path, code) == "".join(f"{command} False True\n" for command in commands)
