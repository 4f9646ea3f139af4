"""Sweeps: ``--multirun`` of ``d2csr-train``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

TINY = [
    "+experiment=demo",
    "trainer=cpu",
    "model.network.features=16",
    "model.network.fusion_features=8",
    "data.patch_size=8",
    "data.batch_size=2",
    "data.patches_per_image=1",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "callbacks.panels.images=0",
]


@pytest.mark.slow
def test_a_failing_job_ends_no_other_and_the_table_names_each(run, tmp_path: Path) -> None:
    finished = run("train", "--multirun", *TINY, "model.optimizer.lr=1e-3,fast,1e-2", "hydra.sweep.dir=sweep")
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("model.optimizer.lr: must be a number at least 0, got 'fast'") == 1
    table = finished.stdout[finished.stdout.index("sweep: 2 of 3 jobs are done") :].splitlines()[2:]
    results = [json.loads((tmp_path / "sweep" / str(n) / "job.json").read_text()) for n in range(3)]
    assert [result["state"] for result in results] == ["done", "failed", "done"]
    for number in (0, 2):
        content = torch.load(tmp_path / "sweep" / str(number) / "checkpoints" / "best.ckpt", weights_only=True)
        [best] = [state["best_model_score"] for name, state in content["callbacks"].items() if "Best" in name]
        assert results[number]["score"] == pytest.approx(float(best))
    assert [" ".join(line.split()) for line in table] == [
        "job settings score state",
        f"0 model.optimizer.lr=0.001 {results[0]['score']:.4f} done",
        "1 model.optimizer.lr=fast failed: model.optimizer.lr: must be a number at least 0, got 'fast'.",
        f"2 model.optimizer.lr=0.01 {results[2]['score']:.4f} done",
    ]


@pytest.mark.slow
def test_a_sweep_without_a_failure_succeeds_and_a_run_makes_no_table(run, tmp_path: Path) -> None:
    finished = run("train", "--multirun", *TINY, "trainer.limit_val_batches=0", "seed=0", "hydra.sweep.dir=sweep")
    assert finished.returncode == 0, finished.stderr
    result = json.loads((tmp_path / "sweep" / "0" / "job.json").read_text())
    assert (result["state"], result["score"]) == ("done", None)
    assert result["seconds"] > 0.1
    assert result["cpu_seconds"] > 0.1
    finished = run("train", *TINY, "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    assert "jobs are done" not in finished.stdout
    assert not (tmp_path / "run" / "job.json").exists()
