"""Finished runs of the study: their evaluation, and a row of results for each."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from d2csr.checkpoints import read_checkpoint
from d2csr.checkpoints.own import read_training_state
from d2csr.data.datamodule import PairDataModule
from d2csr.evaluation import Scoring, evaluate
from d2csr.models.cost import count_flops, count_parameters, on_meta

LR_SIDE = 48  # of the LR image that FLOPs are counted for
ORACLES = ("per pixel", "per 8x8 block")
STATISTICS = ("distance", "distance_same", "distance_diff", "error_correlation", "weight_entropy")
_COMMIT = re.compile(r"git: ([0-9a-f]{40})( with changes)?")


def finished_runs(folder: Path) -> list[Path]:
    """Return the run folders ``SWEEP/ARM/seed-N`` below a folder whose job is done."""
    found = []
    for path in sorted(folder.glob("*/*/seed-*/job.json")):
        done = json.loads(path.read_text(encoding="utf-8")).get("state") == "done"
        if done and (path.parent / "checkpoints" / "last.ckpt").is_file():
            found.append(path.parent)
    return found


def evaluate_run(run: Path) -> None:
    """Evaluate the last checkpoint of a run on its test list, into ``eval/``, unless that is done already."""
    checkpoint, metrics = run / "checkpoints" / "last.ckpt", run / "eval" / "metrics.json"
    if metrics.is_file() and metrics.stat().st_mtime >= checkpoint.stat().st_mtime:
        return
    content = read_checkpoint(checkpoint)
    network = content.model()
    keys = ("name", "root", "list_dir", "train_list", "val_list", "test_list")
    data = {key: content.data[key] for key in keys if content.data.get(key) is not None}
    datamodule = PairDataModule(scale=network.scale, num_workers=0, **data)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, **quiet)
    evaluate(network, datamodule, trainer, Scoring(compare=True), output=run / "eval")


def results_row(run: Path) -> dict[str, Any]:
    """Return sweep, arm, seed, commit, cost, settings, statistics of the leaves, and the PSNR of each test image."""
    state = read_training_state(run / "checkpoints" / "last.ckpt")
    network = read_checkpoint(run / "checkpoints" / "last.ckpt").settings
    metrics = json.loads((run / "eval" / "metrics.json").read_text(encoding="utf-8"))
    job = json.loads((run / "job.json").read_text(encoding="utf-8"))
    on_device = on_meta(network)
    best = best_leaf(run, list(metrics["methods"]))
    return {
        "sweep": run.parent.parent.name,
        "arm": run.parent.name,
        "seed": state["settings"]["seed"],
        "commit": _commit(run),
        "steps": state["step"],
        "cpu_seconds": round(job["cpu_seconds"], 1),
        "parameters": count_parameters(on_device),
        "mflop": round(count_flops(on_device, (1, 3, LR_SIDE, LR_SIDE)) / 1e6, 1),
        **_settings(state["settings"], network),
        **{name: _rounded(metrics.get("leaves", {}).get(name)) for name in STATISTICS},
        "best_leaf": best.removeprefix("leaf "),
        **_scores(metrics, best),
    }


def write_results(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the rows of each sweep into ``SWEEP.csv``; runs of a file that are not among them are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        path = folder / f"{sweep}.csv"
        merged = {(row["arm"], str(row["seed"])): row for row in [*read_results(path), *rows] if row["sweep"] == sweep}
        columns = dict.fromkeys(column for row in merged.values() for column in row)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(merged[key] for key in sorted(merged))
        written.append(path)
    return written


def read_results(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of results, none without the file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def best_leaf(run: Path, methods: list[str]) -> str:
    """Return the leaf of the highest PSNR in the last validation of a run; without leaves, the fusion."""
    leaves = [name for name in methods if name.startswith("leaf ")]
    with (run / "csv" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        validations = [row for row in csv.DictReader(file) if row.get("val/psnr")]
    if not leaves or not validations:
        return "fusion"
    return max(leaves, key=lambda name: float(validations[-1][f"val/psnr_{name.removeprefix('leaf ')}"]))


def _settings(settings: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    divergence, loss = settings["model"]["divergence"], settings["model"]["losses"]["divergence"]
    body = dict(network["body"])
    return {
        "scale": network["scale"],
        "architecture": network.get("architecture", "d2csr"),
        "branching": " ".join(map(str, network["branching"])) if "branching" in network else "",
        "paths": network.get("paths", ""),
        "features": network["features"],
        "fusion_features": network.get("fusion_features", ""),
        "body": body.pop("name"),
        "body_settings": " ".join(f"{name}={value}" for name, value in body.items()),
        "optimization": settings["optimization"],
        "batch_size": settings["data"]["batch_size"],
        "patch_size": settings["data"]["patch_size"],
        **{name: divergence[name] for name in ("weight", "after", "period", "active")},
        **{name: loss[name] for name in ("margin_same", "margin_diff", "decay_rate", "error_term")},
    }


def _scores(metrics: dict[str, Any], best: str) -> dict[str, float | None]:
    """Return the PSNR of each test image by the methods that the study compares, as ``METHOD/IMAGE``."""
    return {
        f"{method}/{name}": _rounded(psnr)
        for method, source in (("bicubic", "bicubic"), ("mean", "mean"), ("best leaf", best), ("fusion", "fusion"))
        for name, psnr in _of_images(metrics, "methods", source)
    } | {
        f"oracle {oracle}/{name}": _rounded(psnr)
        for oracle in ORACLES
        for name, psnr in _of_images(metrics, "oracle", oracle)
    }


def _of_images(metrics: dict[str, Any], group: str, method: str) -> Iterator[tuple[str, float | None]]:
    """Yield the name of each image and its PSNR; a network with one prediction has neither mean nor oracle."""
    for image in metrics["images"]:
        scores = image.get(group, {}).get(method) or image["methods"]["fusion"]
        yield re.sub(r"_LR\d?$", "", Path(image["lr"]).stem), scores["psnr"]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)


def _commit(run: Path) -> str:
    """Return the commit of the package that trained a run, with a + for a checkout with changes, or unknown."""
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in run.glob("d2csr-train.log"))
    found = _COMMIT.findall(text)
    return found[-1][0][:12] + ("+" if found[-1][1] else "") if found else "unknown"
