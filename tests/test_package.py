"""Names of the modules of the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import d2csr


def test_no_two_modules_have_the_same_name() -> None:
    modules = [path.stem for path in Path(d2csr.__file__).parent.rglob("*.py") if path.stem != "__init__"]
    assert len(modules) > 100
    assert [name for name, count in Counter(modules).items() if count > 1] == []
