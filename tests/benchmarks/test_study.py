"""The study: paired differences, tables from results, the page that shows them, and a sweep that is interrupted."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from d2csr.commands.base import config_dir
from d2csr.commands.network_match import apply_match
from d2csr.commands.targets import fit_to_targets, shipped_files
from d2csr.models.cost import count_flops, count_parameters, on_meta

ROOT = Path(__file__).parents[2]
SWEEPS = sorted(path.stem for path in (ROOT / "conf/experiment/study").glob("*.yaml") if path.stem != "small")
TABLES = {"divergence", "fusion", "trees", "baselines", "modes"}
PAPER = {
    **{"sweep": "divergence_weight", "arm": "weight-2e-05", "weight": 2e-5, "error_term": True, "after": 1},
    **{"margin_same": 2e-5, "margin_diff": 5e-5, "decay_rate": 0.8, "architecture": "d2csr", "paths": ""},
    **{"branching": "2 2", "body": "rcab", "optimization": "joint", "parameters": 1234, "mflop": 56.0},
    **{"cpu_seconds": 30.0, "steps": 600, "distance": 0.01, "error_correlation": 0.99, "weight_entropy": 0.98},
}
REFERENCE = {"scale": 2, "features": 16, "branching": [2, 2], "fusion_features": 16}
METHODS = ("bicubic", "mean", "best leaf", "fusion", "oracle per pixel", "oracle per 8x8 block")


@pytest.fixture(scope="module")
def study() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import study
    return study


@pytest.fixture(scope="module")
def statistics(study: ModuleType) -> ModuleType:
    return sys.modules["study_statistics"]


def row(seed: int, psnr: dict[str, float], **settings: object) -> dict[str, str]:
    """Return a row of results; the fusion has these scores, the methods around it are 1 dB apart."""
    scores = {f"{method}/{name}": v + METHODS.index(method) - 3 for method in METHODS for name, v in psnr.items()}
    return {name: str(value) for name, value in {**PAPER, "seed": seed, **settings, **scores}.items()}


def write_results(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir()
    for sweep in {one["sweep"] for one in rows}:
        with (folder / f"{sweep}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(one for one in rows if one["sweep"] == sweep)


def test_the_interval_of_one_seed_is_that_of_scipy(statistics: ModuleType) -> None:
    differences = np.random.default_rng(1).normal(0.1, 0.3, (1, 12))
    found = statistics.bootstrap_interval(differences, resamples=40_000)
    resampled = {"method": "percentile", "n_resamples": 40_000, "rng": np.random.default_rng(2)}
    expected = scipy.stats.bootstrap((differences[0],), np.mean, **resampled).confidence_interval
    assert found.mean == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.01)


def test_seeds_and_images_are_drawn_independently(statistics: ModuleType) -> None:
    differences = np.array([[0.0, 1.0], [3.0, 10.0]])
    pairs = list(product((0, 1), repeat=2))
    drawn = [differences[np.ix_(seeds, images)].mean() for seeds in pairs for images in pairs]
    found = statistics.bootstrap_interval(differences, resamples=40_000, level=0.6)
    expected = np.quantile(drawn, [0.2, 0.8], method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    as_independent = np.quantile([np.mean(four) for four in product(differences.flat, repeat=4)], [0.2, 0.8])
    assert found.high - found.low > as_independent[1] - as_independent[0]


def test_differences_are_paired_by_seed_and_photograph(statistics: ModuleType) -> None:
    reference = [row(0, {"A_1": 20, "A_2": 30, "B_1": 40}), row(1, {"A_1": 21, "A_2": 31, "B_1": 41})]
    rows = [row(1, {"A_1": 21.5, "A_2": 31.7, "B_1": 41.2}), row(7, {"A_1": 0, "A_2": 0, "B_1": 0})]
    found = statistics.paired_difference(rows, reference)
    assert (found.seeds, found.mean) == (1, pytest.approx((0.6 + 0.2) / 2))  # A has two windows, B one
    assert (found.low, found.high) == pytest.approx((0.2, 0.6))
    assert found.excludes_zero
    assert statistics.paired_difference(rows, reference, "mean").mean == pytest.approx(0.4 - 2)
    assert statistics.paired_difference(rows[1:], reference) is None
    with pytest.raises(ValueError, match="other images"):
        statistics.paired_difference([rows[0] | {"fusion/C_1": "30"}], reference)


def test_the_page_gets_the_tables_and_plots_of_the_results(study: ModuleType, tmp_path: Path) -> None:
    rows = [row(seed, {"A_1": 30 + seed, "B_1": 40}) for seed in (0, 1, 2)]
    rows += [row(seed, {"A_1": 30.5 + seed, "B_1": 40.5}, arm="weight-2.0", weight=2.0) for seed in (0, 1, 2)]
    rows += [row(0, {"A_1": 29, "B_1": 41}, sweep="trees", arm="flat1", branching="1", distance="")]
    rows += [row(0, {"A_1": 29.9, "B_1": 40}, sweep="modes", arm="sequential", optimization="sequential")]
    write_results(tmp_path / "results", rows)
    page = tmp_path / "docs" / "evidence.md"
    page.parent.mkdir()
    marks = [f"<!-- table {name} -->\nold\n<!-- end of the table -->" for name in sorted(TABLES)]
    page.write_text("\n\n".join(["# Evidence", *marks, "The end."]))
    study.draw(tmp_path / "results", page.parent)
    text = page.read_text()
    assert "old" not in text
    assert text.endswith("The end.")
    for line in (
        "| bicubic | | 32.000 | | | | | | | | |",
        "| weight 2e-05 | 3 | 35.500 | reference | 33.500 | 34.500 | 37.500 | 36.500 | 2.55 | 0.9900 | 0.980 |",
        "| weight 2 | 3 | 36.000 | **+0.500 [+0.500, +0.500]** | 34.000 | 35.000 | 38.000 | 37.000 "
        "| 2.55 | 0.9900 | 0.980 |",
        "| weight 2 | 36.000 | **−2.000 [−2.000, −2.000]** | **−1.000 [−1.000, −1.000]** | **+2.000 [+2.000, +2.000]** "
        "| **+1.000 [+1.000, +1.000]** |",
        "| [1]: 1 leaf | 1 | 1,234 | 35.000 | +0.000 [−1.000, +1.000] | 33.000 | 34.000 | 37.000 | 36.000 "
        "| | 0.9900 | 0.980 |",
        "| `sequential` | 1 | 600 | 30 | 34.950 | −0.050 [−0.100, +0.000] | 32.950 | 33.950 |",
    ):
        assert line in text.splitlines()
    for name in ("evidence-divergence.png", "evidence-differences.png"):
        with Image.open(page.parent / name) as image:
            assert min(image.size) > 300
    study.draw(tmp_path / "results", page.parent)
    assert page.read_text() == text


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="a source distribution has no results")
def test_the_page_shows_the_stored_results(study: ModuleType) -> None:
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    runs = sys.modules["study_tables"].read_runs(ROOT / "results")
    assert set(re.findall(r"<!-- table (\w+) -->", text)) == TABLES
    assert study.with_tables(text, runs) == text
    assert {sweep for sweep, _ in runs} <= set(SWEEPS)
    for rows in runs.values():
        assert len({one["seed"] for one in rows}) == len(rows)


@pytest.mark.slow
def test_without_results_the_script_says_what_to_do(python: str, tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "study.py"
    for arguments, message in (
        (["runs/study"], "study.py: runs/study: holds no finished run; start with d2csr-train +experiment=study/"),
        (["--results", "none"], "study.py: none: holds no results; run python benchmarks/study.py runs/study first."),
    ):
        command = [python, str(script), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(message)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_has_a_folder_for_each_run_and_three_seeds(sweep: str) -> None:
    content = OmegaConf.load(ROOT / "conf" / "experiment" / "study" / f"{sweep}.yaml")
    hydra = OmegaConf.to_container(content)["hydra"]  # type: ignore[index, call-overload]
    assert hydra["sweep"]["dir"] == f"runs/study/{sweep}"
    assert hydra["sweep"]["subdir"].endswith("/seed-${seed}")
    assert hydra["sweeper"]["params"]["seed"] == "0,1,2"


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_each_run_of_a_sweep_has_its_own_folder_and_the_cost_of_the_reference(sweep: str) -> None:
    def composed(*overrides: str) -> DictConfig:
        cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # the folder names a choice of Hydra
        return cfg

    folders, measured = [], []
    with initialize_config_dir(config_dir(), version_base="1.3"):
        values = composed(f"+experiment=study/{sweep}").hydra.sweeper.params
        for choice in product(*(str(value).split(",") for value in values.values())):
            overrides = [f"{key}={value}" for key, value in zip(values, choice, strict=True)]
            if "seed=2" in overrides:
                continue
            cfg = composed(f"+experiment=study/{sweep}", *overrides)
            folders.append(cfg.hydra.sweep.subdir)
            if cfg.match is None:
                assert cfg.model.network.branching == [2, 2]
                continue
            quantity = cfg.match
            networks = [quantity, *(OmegaConf.to_container(part, resolve=True) for part in (cfg.model, cfg.match_to))]
            if networks in measured:  # with another seed
                continue
            measured.append(networks)
            choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
            fit_to_targets(cfg, shipped_files(config_dir(), "train", choices), overrides)
            reference = {**REFERENCE, "body": OmegaConf.to_container(cfg.model.network.body)}
            apply_match(cfg)
            cost = on_meta(OmegaConf.to_container(cfg.model.network, resolve=True)), on_meta(reference)
            count = count_parameters if quantity == "parameters" else lambda n: count_flops(n, (1, 3, 32, 32))
            assert count(cost[0]) == pytest.approx(count(cost[1]), rel=0.1)
    assert len(set(folders)) == len(folders) >= 2


TINY = [
    *("data=demo", "data.patch_size=8", "data.batch_size=2", "data.patches_per_image=1"),
    *("model.network.features=4", "model.network.fusion_features=4"),
    *("model.network.body.reduction=4", "model.network.body.blocks=1"),
    *("trainer.max_epochs=40", "trainer.check_val_every_n_epoch=40", "checkpoint.every_n_steps=1"),
    'hydra.sweeper.params={seed: "0", model.divergence.weight: "0,2e-5"}',
]


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_ended_and_is_gathered(
    study: ModuleType, python: str, tmp_path: Path
) -> None:
    command = [python, "-m", "d2csr.commands.train", "+experiment=study/divergence_weight", *TINY]
    first, second = (tmp_path / f"runs/study/divergence_weight/weight-{w}/seed-0" for w in ("0", "2e-05"))
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not (second / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (second / "job.json").exists()
    done, weights = json.loads((first / "job.json").read_text()), (first / "checkpoints" / "last.ckpt").read_bytes()
    assert study.finished_runs(tmp_path / "runs" / "study") == [first]

    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "2 of 2 jobs are done" in finished.stdout
    assert f"{first} is finished already" in finished.stdout
    assert re.search(rf"resume: {second}/checkpoints/last.ckpt, epoch \d+, batch", finished.stdout)
    again = json.loads((first / "job.json").read_text())
    assert again["score"] == done["score"] is not None
    assert again["cpu_seconds"] > done["cpu_seconds"] > 0
    assert (first / "checkpoints" / "last.ckpt").read_bytes() == weights

    study.gather(tmp_path / "runs" / "study", tmp_path / "results")
    with (tmp_path / "results" / "divergence_weight.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(one["arm"], one["seed"], one["steps"]) for one in rows] == [
        ("weight-0", "0", "80"),
        ("weight-2e-05", "0", "80"),
    ]
    metrics = json.loads((second / "eval" / "metrics.json").read_text())
    assert float(rows[1]["error_correlation"]) == pytest.approx(metrics["leaves"]["error_correlation"], abs=1e-5)
    names = [Path(image["lr"]).stem.removesuffix("_LR2") for image in metrics["images"]]
    assert [float(rows[1][f"fusion/{name}"]) for name in names] == pytest.approx(
        [image["psnr"] for image in metrics["images"]], abs=1e-5
    )
    oracles = [image["oracle"]["per 8x8 block"]["psnr"] for image in metrics["images"]]
    assert [float(rows[1][f"oracle per 8x8 block/{name}"]) for name in names] == pytest.approx(oracles, abs=1e-5)
    assert rows[1]["best_leaf"] in {"11", "12", "21", "22"}
    assert rows[1]["error_term"] == "True"
