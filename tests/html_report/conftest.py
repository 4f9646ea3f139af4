from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from d2csr.data.lists import ImagePair
from d2csr.evaluation.report import Report
from d2csr.html_report import write_page, write_pictures
from image_results import make_result

ABOUT = {"checkpoints": [{"method": "fusion", "path": "runs/a/last.ckpt", "sha256": "ab12" * 16}], "sr": []}


Write = Callable[..., tuple[Path, Report]]


@pytest.fixture(scope="session")
def write_report() -> Write:
    """Return a function that writes the report of images with these names, and returns its page and scores."""

    def write(folder: Path, names: list[str], others: tuple[str, ...] = (), **settings: str) -> tuple[Path, Report]:
        results = [make_result(index, others=others) for index in range(len(names))]
        for result in results:
            write_pictures(result, folder, len(names))
        pairs = [ImagePair(Path("lr", name), Path("hr", name), "list") for name in names]
        about = {**ABOUT, "sr": [{"method": name, "path": name} for name in others]}
        report = Report(2, pairs, {"d2csr": [result.scores for result in results]}, about=about)
        return write_page(report, folder, **settings), report

    return write
