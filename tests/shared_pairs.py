"""Pairs of the demo that the tests make once: writing the images takes a second of each training of the demo.

``tests/demo``, the demo run and the wheel's commands make their own.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from d2csr.demo.demo_pairs import PHOTOS, DemoDataModule, write_pairs

#: Environment variable: the folder of the shared pairs. Without it each data module makes its own.
SHARED = "D2CSR_TEST_PAIRS"


def copy_pairs(folder: Path, scale: int) -> None:
    """Copy the shared pairs into a folder that has none; ``write_pairs`` finds them complete, or reports the error."""
    shared = Path(os.environ[SHARED])
    name = f"x{scale}"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / ".lock"):
        write_pairs(shared, scale)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            for file in [f"demo_{name}_{split}.txt" for split in PHOTOS]:
                shutil.copyfile(shared / file, Path(partial) / file)
                (Path(partial) / file).replace(folder / file)
            shutil.copytree(shared / name, Path(partial) / name)
            (Path(partial) / name).rename(folder / name)


def share_demo_pairs() -> None:
    """Let the data modules of this process, and of those forked from it, copy the shared pairs."""
    prepare_data = DemoDataModule.prepare_data

    @functools.wraps(prepare_data)  # the site of the documentation shows its docstring
    def prepare(data: DemoDataModule) -> None:
        folder = Path(data.splits.list_dir)
        if SHARED in os.environ and not (folder / f"x{data.scale}").exists():
            copy_pairs(folder, data.scale)
        prepare_data(data)

    DemoDataModule.prepare_data = prepare
