"""Training from HR images alone by the commands: exact resume, and evaluation of the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

TINY = [
    *("data=degraded", "data.hr=hr", "scale=2", "trainer=cpu", "data.patch_size=8", "data.batch_size=2"),
    *("data.patches_per_image=2", "data.num_workers=0", "model.features=16", "model.groups=1", "model.blocks=1"),
    *("model.fusion_features=16", "trainer.check_val_every_n_epoch=1", "trainer.enable_progress_bar=false"),
    *("callbacks=none",),
]


@pytest.mark.slow
def test_a_training_resumes_exactly_and_its_checkpoint_is_evaluated(call, tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "hr" / f"{number}.png")
    for arguments in (["hydra.run.dir=whole"], ["trainer.max_steps=3", "hydra.run.dir=part"]):
        finished = call("train", *TINY, "trainer.max_epochs=2", *arguments)
        assert finished.returncode == 0, finished.stderr
    # 4 images for training: 4 batches an epoch. Steps of the alternating mode count twice in Lightning.
    finished = call("train", *TINY, "trainer.max_epochs=2", "resume=part", "hydra.run.dir=part", "data.num_workers=1")
    assert finished.returncode == 0, finished.stderr
    whole, part = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "part")
    )
    assert all(torch.equal(whole[name], part[name]) for name in whole)

    finished = call("eval", "ckpt=whole/checkpoints/last.ckpt", "trainer=cpu", "hydra.run.dir=eval")
    assert finished.returncode == 0, finished.stderr
    [image] = json.loads((tmp_path / "eval" / "metrics.json").read_text())["images"]
    assert Path(image["hr"]).parent == tmp_path / "hr"
    assert Path(image["lr"]).is_relative_to(tmp_path / "degraded")
    assert "selected by its PSNR" not in finished.stdout
