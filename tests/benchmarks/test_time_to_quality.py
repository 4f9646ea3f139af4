"""Benchmark of the time to a quality: its settings, its table, and a small run that is interrupted."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from d2csr.optimizers import MuonWithAdamW
from pair_files import write_pairs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import time_to_quality
    return time_to_quality


@pytest.fixture(scope="module")
def settings(script: ModuleType) -> ModuleType:
    return sys.modules["quality_settings"]


def train_both(
    script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> tuple[dict[str, Any], Path]:
    """Run the benchmark on random images, and return its results and their file."""
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        (folder / part).mkdir()
        write_pairs(folder / part, count, 100, 110)
    lists = [f"data.{part}_list={folder / part / 'train.txt'}" for part in ("train", "val", "test")]
    file = folder / "results.json"
    options = [f"--device={device}", "--recipe-only", "--epochs=20", "--share=0.1", "--seeds=0", f"--json={file}"]
    monkeypatch.setattr(sys, "argv", ["time_to_quality.py", *options, "data=pairs", *lists])
    monkeypatch.setattr(script.torch, "set_num_threads", lambda count: None)  # of the process of the tests
    script.main()
    return json.loads(file.read_text()), file


def run(name: str, seed: int, psnr: list[float], test: float, step: float = 1.0) -> dict[str, Any]:
    return {"name": name, "seed": seed, "psnr": psnr, "cpu": [step * (i + 1) for i in range(len(psnr))], "test": test}


def test_each_change_of_the_recipe_can_be_built_and_changes_something(settings: ModuleType) -> None:
    built = {}
    arguments = Namespace(device="cpu", epochs=300, share=0.25, overrides=[])
    for name, changed in (settings.changes(75) | settings.means(75)).items():
        cfg = settings.configuration(name, 0, arguments, changed)
        instantiate(cfg.model, _convert_="all")
        if name not in settings.GROWING:
            built[name] = cfg
    assert built[settings.RECIPE].model.optimizer._target_ == f"d2csr.optimizers.{MuonWithAdamW.__name__}"
    assert all(cfg != built[settings.RECIPE] for name, cfg in built.items() if name != settings.RECIPE)
    assert built["a tenth of the epochs"].trainer.max_epochs == 30  # of 300, of which 75 are a quarter


def test_the_table_has_times_to_the_end_of_the_same_seeds_plain_loop(script: ModuleType, settings: ModuleType) -> None:
    runs = [
        run(settings.BICUBIC, 0, [27.0], 30.0),
        *(run(settings.PLAIN, seed, [26.0, 28.0, 29.95, 30.0 + seed], 31.0, step=50) for seed in (0, 1)),
        *(run(settings.RECIPE, seed, [29.0, 29.9, 30.5, 31.0], 33.0 + seed) for seed in (0, 1)),
        run("weaker", 1, [26.0, 30.95], 32.5),
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in script.table(runs)[2:]]
    assert rows == [
        ["bicubic", "", "27.00", "30.00", "", "", "", "", "", ""],
        ["plain loop", "2", "30.50", "31.00", "−2.50 (−3.00 to −2.00)", "200.0", "100.0", "175.0", "200.0", ""],
        ["realsr_x4_fast", "2", "31.00", "33.50", "", "4.0", "1.0", "3.0", "3.5", "58 (50 to 67)"],
        ["weaker", "1", "30.95", "32.50", "−1.50 (−1.50 to −1.50)", "2.0", "2.0", "2.0", "not reached", ""],
    ]


def test_on_a_gpu_the_seconds_are_those_of_the_clock(script: ModuleType, settings: ModuleType) -> None:
    cfg = settings.configuration(settings.RECIPE, 0, Namespace(device="cuda", epochs=300, share=0.25, overrides=[]), [])
    assert cfg.trainer.accelerator == "gpu"
    runs = [
        run(settings.BICUBIC, 0, [27.0], 30.0) | {"wall": [0.0]},
        run(settings.PLAIN, 0, [26.0, 30.0], 31.0) | {"wall": [45.0, 90.0]},
        run(settings.RECIPE, 0, [29.0, 30.5], 33.0) | {"wall": [9.0, 18.0]},
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in script.table(runs, "wall")[3:]]
    assert [row[5:] for row in rows] == [
        ["90.0", "90.0", "90.0", "90.0", ""],
        ["18.0", "9.0", "18.0", "18.0", "5 (5 to 5)"],
    ]


def test_runs_of_another_device_are_not_continued(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    same = {"epochs": 300, "share": 0.25, "overrides": []}
    file.write_text(json.dumps({"arguments": same, "runs": []}))  # written before there was a choice
    assert script._earlier_runs(file, Namespace(device="cpu", show=False, **same)) == []
    with pytest.raises(SystemExit, match=r"results.json: has runs with device cpu; name another file by --json"):
        script._earlier_runs(file, Namespace(device="cuda", show=False, **same))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_both_train_on_a_gpu(
    script: ModuleType, settings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = train_both(script, tmp_path, monkeypatch, "cuda")
    bicubic, plain, recipe = found["runs"]
    assert 0 < recipe["wall"][0] < recipe["wall"][1] < plain["wall"][-1]
    assert recipe["psnr"][0] > bicubic["psnr"][0] > plain["psnr"][-1]


@pytest.mark.slow
def test_a_repeated_command_continues_with_the_missing_runs(
    script: ModuleType, settings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, file = train_both(script, tmp_path, monkeypatch, "cpu")
    bicubic, plain, recipe = content["runs"]
    assert [one["name"] for one in content["runs"]] == [settings.BICUBIC, settings.PLAIN, settings.RECIPE]
    assert plain["epoch"] == list(range(1, 21))
    assert recipe["epoch"] == [1, 2]
    assert 0 < recipe["cpu"][0] < recipe["cpu"][1] < plain["cpu"][-1]
    assert recipe["psnr"][0] > bicubic["psnr"][0] > plain["psnr"][-1]  # the recipe starts at interpolated images
    content["runs"].remove(recipe)
    file.write_text(json.dumps(content))
    script.main()
    again = json.loads(file.read_text())["runs"]
    assert again[:2] == [bicubic, plain]
    assert again[2]["psnr"] == recipe["psnr"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "model.optimizer.lr=1e-3"])
    with pytest.raises(SystemExit, match=r"results.json: has runs with overrides .*; name another file by --json"):
        script.main()
