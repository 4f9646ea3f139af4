"""Names of the modules of the package, and what they import."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import d2csr
from d2csr.checkpoints import save_model
from d2csr.models import D2CSR


def test_no_two_modules_have_the_same_name() -> None:
    modules = [path.stem for path in Path(d2csr.__file__).parent.rglob("*.py") if path.stem != "__init__"]
    assert len(modules) > 100
    assert [name for name, count in Counter(modules).items() if count > 1] == []


@pytest.mark.slow
def test_loading_a_model_and_scoring_import_neither_torchmetrics_nor_the_compiler_of_torch(tmp_path: Path) -> None:
    save_model(tmp_path / "x2.ckpt", D2CSR(2, 16, [2], 4, {"name": "rcab", "groups": 1, "blocks": 1}))
    code = (
        "import sys, torch, d2csr\n"
        "d2csr.load_model('x2.ckpt')\n"
        "d2csr.metrics.psnr(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), scale=2)\n"
        "print({'torch._dynamo', 'torchmetrics', 'torchvision', 'scipy', 'matplotlib'} & {*sys.modules})\n"
        "d2csr.metrics.PSNR(2)\n"
        "print('torchmetrics' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "set()\nTrue\n", done.stderr
