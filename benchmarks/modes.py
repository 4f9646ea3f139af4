"""Benchmark of the modes of optimization and of the divergence loss: quality of the demo over several seeds.

Each run trains the demo as ``d2csr-train +experiment=demo`` does, with a validation after every epoch, and is then
evaluated on the test photographs as ``d2csr-eval`` does (protocol ``d2csr``). Runs of the modes take turns. Time is the
CPU time of the training in one thread, which depends less on other processes than wall-clock time. Results are saved
after each run: if the benchmark is interrupted and called again, it continues with the missing runs.

    python benchmarks/modes.py --json runs/modes.json
    python benchmarks/modes.py --json runs/modes.json --show       prints the table of what is there
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Any

MODES = {
    "alternating": ["optimization=alternating"],
    "joint": ["optimization=joint"],
    "alternating, divergence loss detached": ["optimization=alternating", "model.divergence.gradient=false"],
    "alternating, no divergence loss": ["optimization=alternating", "model.divergence.weight=0"],
}


def main() -> None:
    arguments = _arguments()
    file = Path(arguments.json)
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.is_file() else []
    done = {(run["mode"], run["seed"]) for run in runs}
    for seed in range(arguments.seeds):
        for mode, overrides in MODES.items():
            if arguments.show or (mode, seed) in done:
                continue
            run = _run([*overrides, f"seed={seed}", *arguments.overrides], file.parent / "demo_pairs")
            runs.append({"mode": mode, "seed": seed, **run})
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"overrides": arguments.overrides, "runs": runs}, indent=2) + "\n")
            print(f"{mode}, seed {seed}: {run['test']['fusion']:.3f} dB, {run['seconds'][-1]:.0f} s", flush=True)
    _print_table(runs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", default="runs/modes.json", help="where the results are kept")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("overrides", nargs="*", help="further settings of d2csr-train, such as trainer.max_epochs=1")
    return parser.parse_args()


def _run(overrides: list[str], pairs: Path) -> dict[str, Any]:
    """Train and evaluate once; return the scores of each epoch and of the test."""
    import pytorch_lightning as pl
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from d2csr.commands.base import config_dir
    from d2csr.evaluation import evaluate

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    settings = ["+experiment=demo", "trainer=cpu", f"data.list_dir={pairs}", "trainer.enable_progress_bar=false"]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [*settings, "trainer.check_val_every_n_epoch=1", *overrides])
    torch.set_num_threads(cfg.threads)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    task, datamodule = (instantiate(part, _convert_="all") for part in (cfg.model, cfg.data))
    watch = _watch(pl)
    options = {"logger": False, "enable_checkpointing": False, "_convert_": "all"}
    instantiate(cfg.trainer, callbacks=[watch], **options).fit(task, datamodule=datamodule)
    report = evaluate(
        task.network.eval(), datamodule, instantiate(cfg.trainer, **options), output=pairs.parent / "eval"
    )
    test = {name: scores["psnr"] for name, scores in report.means("d2csr").items()}
    return {"seconds": watch.seconds, "psnr": watch.psnr, "test": test}


def _watch(pl: Any) -> Any:
    class Watch(pl.Callback):  # type: ignore[misc, name-defined]
        """Record the CPU time of the training so far and the validation PSNR after each epoch."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.psnr: list[float] = []
            self.spent = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.started = time.process_time()

        def on_validation_start(self, *_: Any) -> None:
            self.spent += time.process_time() - self.started
            self.seconds.append(self.spent)

        def on_validation_end(self, trainer: Any, *_: Any) -> None:
            self.psnr.append(float(trainer.callback_metrics["val/psnr"]))
            self.started = time.process_time()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.spent += time.process_time() - self.started

    return Watch()


def _print_table(runs: list[dict[str, Any]]) -> None:
    """Print a row for each mode: mean and spread over the seeds, and the time to a PSNR that all runs reached."""
    if not runs:
        return
    reached = min(run["psnr"][-1] for run in runs)
    print(f"\n| mode | seeds | test PSNR, dB | least to most | training, s | to {reached:.2f} dB in validation, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for mode in dict.fromkeys(run["mode"] for run in runs):
        rows = [run for run in runs if run["mode"] == mode]
        psnr = [row["test"]["fusion"] for row in rows]
        spread = f" ± {statistics.stdev(psnr):.3f}" if len(psnr) > 1 else ""
        times = [next(s for s, p in zip(row["seconds"], row["psnr"], strict=True) if p >= reached) for row in rows]
        print(
            f"| {mode} | {len(rows)} | {statistics.mean(psnr):.3f}{spread} | {min(psnr):.3f} to {max(psnr):.3f} | "
            f"{statistics.mean(row['seconds'][-1] for row in rows):.0f} | {statistics.mean(times):.0f} |"
        )


if __name__ == "__main__":
    main()
