from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.inference import Inference
from d2csr.upscaling.names import InputImage
from d2csr.upscaling.pipeline import Options
from d2csr.upscaling.upscale_task import upscale_files

OTHERS = (".half.png.theirs.partial", "half.png")  # of another run


class InterruptedTrainer:
    """As Lightning after Ctrl-C: it has killed another process, in the middle of a file, and exits."""

    interrupted = True
    is_global_zero = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def predict(self, task, dataloaders, return_predictions: bool) -> None:
        (self.folder / "below").mkdir(exist_ok=True)
        for name in (f".half.png.{task.token}0123.partial", f"below/.half.png.{task.token}.partial", *OTHERS):
            (self.folder / name).touch()
        raise SystemExit(1)


def test_incomplete_files_of_a_killed_rank_are_removed_and_no_others(tmp_path, random_model) -> None:
    folder = tmp_path / "out"
    trainer = InterruptedTrainer(folder)
    images = [InputImage(tmp_path / "a.png", Path("a.png"))]
    with pytest.raises(KeyboardInterrupt):
        upscale_files(random_model(2), images, folder, trainer, Inference(), Options())
    assert {path.name for path in folder.rglob("*")} == {"below", *OTHERS}
    trainer.interrupted = False
    with pytest.raises(SystemExit):
        upscale_files(random_model(2), images, folder, trainer, Inference(), Options())
