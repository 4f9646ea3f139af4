"""Benchmark of the training data: speed and memory of the disk cache, and of decoding a PNG pair for each sample.

    make bench-data                                   # generates the data set first, which takes minutes
    python benchmarks/data.py runs/bench-data --quick

The data set is that of ``make_dataset.py``. The variants are measured in turns in the same run; the report holds
medians and targets. Times are wall-clock times, which grow on a busy machine; samples per second of CPU time depend
less on other processes. The rate of a core is measured in one process. With workers, the processor time is that of all
processes together, and one variant uses torch's workers, which allocate shared memory for each batch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START = time.perf_counter()

from d2csr.files import cores  # noqa: E402 - the clock runs first

SCALE, PATCH, BATCH = 4, 96, 4
FIRST_BATCH = "first batch"


def main() -> None:
    arguments = _arguments()
    if arguments.first_batch:
        _first_batch(arguments.first_batch)
        return
    import torch

    torch.set_num_threads(1)
    cache_dir = str((arguments.cache_dir or arguments.folder / "cache").absolute())
    root = str((arguments.folder / "RealSR(V3)").absolute())
    settings = {"root": root, "cache_dir": cache_dir}
    seconds, pairs = _prepare(settings)
    report: dict[str, Any] = {
        "machine": _machine(),
        "pairs": pairs,
        "prepared_seconds": seconds,
        "throughput": _throughput(settings, arguments.repeats, arguments.quick),
        "start_seconds": [_start(settings) for _ in range(arguments.repeats)],
        "worker_mb": _memory(settings, "disk", epochs=4 if arguments.quick else 10),
        "decoding_worker_mb": _memory(settings, "none", epochs=1),
    }
    report["load_average_after"] = os.getloadavg()
    report["table"] = _table(report)
    _print(report)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the folder that make_dataset.py wrote")
    parser.add_argument("--cache-dir", type=Path, help="of the disk cache (default: FOLDER/cache)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer samples and epochs")
    parser.add_argument("--json", type=Path, help="also write all numbers here")
    parser.add_argument("--first-batch", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser.parse_args()


def _data(settings: dict[str, str], **more: Any) -> Any:
    """Return a data module whose ``fit`` stage is set up."""
    from d2csr.data.datamodule import PairDataModule

    fixed = {"scale": SCALE, "name": "realsr", "batch_size": BATCH, "patch_size": PATCH}
    data = PairDataModule(**{**fixed, **settings, **more})
    data.setup("fit")
    return data


def _prepare(settings: dict[str, str]) -> tuple[float, int]:
    """Check the pairs and fill the cache; return the seconds and the number of pairs."""
    start = time.perf_counter()
    data = _data(settings, cache="disk", num_workers=0)
    return time.perf_counter() - start, len(data.train_dataloader().dataset)


def _throughput(settings: dict[str, str], repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Return samples per second and core, by cache, in one process and with workers, in turns."""
    from torch.utils.data import DataLoader

    rows = []
    for name, cache, workers in (
        *(("disk", "disk", 0), ("none", "none", 0), ("device", "device", 0)),
        *(("disk, workers", "disk", cores()), ("torch, workers", "disk", cores()), ("none, workers", "none", cores())),
    ):
        per_image = 1 if cache == "none" or quick else 4
        loader = _data(settings, cache=cache, num_workers=workers, patches_per_image=per_image).train_dataloader()
        if name == "torch, workers":
            loader = DataLoader(
                loader.dataset, BATCH, sampler=loader.sampler, num_workers=workers, persistent_workers=True
            )
        rows.append({"name": name, "cache": cache, "workers": workers, "loader": loader, "rates": [], "cpu": []})
    for epoch in range(-1, repeats):  # the first turn warms up
        for row in rows:
            row["loader"].sampler.set_epoch(epoch + 1)
            # One process may stop early. Workers would still decode their batches while the next row is measured.
            most = 100 // BATCH if row["name"] == "none" else None
            pids = row.setdefault("pids", [])
            before = {child.pid for child in multiprocessing.active_children()}
            iterator = iter(row["loader"])
            if row["name"] == "torch, workers":
                pids += [child.pid for child in multiprocessing.active_children() if child.pid not in before]
            elif row["workers"]:
                pids[:] = row["loader"].worker_pids()
            rate, cpu = _samples_a_second(iterator, most, pids)
            if epoch >= 0:
                row["rates"].append(rate / max(1, row["workers"]))
                row["cpu"].append(cpu)
    for row in rows:
        row.pop("loader")
        row["median"], row["cpu_median"] = statistics.median(row["rates"]), statistics.median(row["cpu"])
    return rows


def _samples_a_second(iterator: Any, most: int | None, pids: Sequence[int]) -> tuple[float, float]:
    """Return samples per second of wall-clock time and of processor time, without the start of workers."""
    next(iterator)
    start, cpu, samples = time.perf_counter(), _cpu_seconds(pids), 0
    for number, batch in enumerate(iterator, start=1):
        samples += len(batch["lr"])
        if number == most:
            break
    return samples / (time.perf_counter() - start), samples / (_cpu_seconds(pids) - cpu)


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of this process and of others."""
    total = time.process_time()
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _start(settings: dict[str, str]) -> dict[str, float]:
    """Return the seconds from the command to the first batch, and those of the imports."""
    with tempfile.TemporaryDirectory() as run:
        overrides = [f"data.root='{settings['root']}'", f"data.cache_dir='{settings['cache_dir']}'"]
        overrides += ["+experiment=realsr_x4", "trainer=cpu", "data.num_workers=2", f"hydra.run.dir={run}"]
        command = [sys.executable, __file__, "--first-batch", *overrides]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith(FIRST_BATCH)), None)
            total = time.perf_counter() - start
            process.stdout.read()  # waits until the workers have ended
    if line is None:
        sys.exit("d2csr-train printed no first batch; run it by itself to see the error.")
    imports = float(line.removeprefix(FIRST_BATCH))
    return {"total": total, "imports": imports, "beyond": total - imports}


def _first_batch(overrides: Sequence[str]) -> None:
    """Run d2csr-train up to the first batch, and print the seconds of the imports."""
    import d2csr.commands.train
    import d2csr.data.datamodule
    import d2csr.loggers
    import d2csr.training.build
    import d2csr.training.fit

    imports = time.perf_counter() - START

    def arrived(self: Any, batch: Any, index: int) -> None:
        print(f"\n{FIRST_BATCH} {imports}", flush=True)
        os._exit(0)

    d2csr.data.datamodule.PairDataModule.on_after_batch_transfer = arrived
    sys.argv[1:] = overrides
    d2csr.commands.train.main()


def _memory(settings: dict[str, str], cache: str, epochs: int) -> dict[str, list[float]]:
    """Return the memory of the larger of two workers after each epoch, in MB, by the name of the kernel's count."""
    data = _data(settings, cache=cache, num_workers=2)
    loader = data.train_dataloader()
    after: dict[str, list[float]] = {"Private": [], "Pss": [], "Rss": []}
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for _ in loader:
            pass
        for name, values in after.items():
            values.append(max(_memory_mb(pid, name) for pid in loader.worker_pids()))
    return after


def _memory_mb(pid: int | None, name: str) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if not rollup.exists():
        return float("nan")
    names = ("Private_Clean:", "Private_Dirty:") if name == "Private" else (f"{name}:",)
    return sum(int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith(names)) / 1000


def _table(report: dict[str, Any]) -> list[dict[str, Any]]:
    rate = {row["name"]: row["median"] for row in report["throughput"]}
    cpu = {row["name"]: row["cpu_median"] for row in report["throughput"]}
    start = statistics.median(start["beyond"] for start in report["start_seconds"])
    memory = report["worker_mb"]
    private, shared = memory["Private"], max(memory["Pss"])
    growth = private[-1] - private[len(private) // 2 - 1]  # at first Python's own heap fills up

    def row(what: str, target: str, figure: float, form: str, met: bool) -> dict[str, Any]:
        return {"what": what, "target": target, "figure": figure, "shown": format(figure, form), "met": met}

    ratio, passed = rate["disk"] / rate["none"], cpu["disk, workers"]
    rows = [
        row("samples/s/core from the disk cache", "≥ 1,000", rate["disk"], ",.0f", rate["disk"] >= 1000),
        row("the same for a second of CPU time", "≥ 1,000", cpu["disk"], ",.0f", cpu["disk"] >= 1000),
        row("the same through workers, CPU time of all", "≥ 1,000", passed, ",.0f", passed >= 1000),
        row("times torch's workers", "", passed / cpu["torch, workers"], ".1f", True),
        row("samples for a second of CPU time, data.cache=device", "", cpu["device"], ",.0f", True),
        row("times decoding the PNG pair for each sample", "≥ 20", ratio, ".1f", ratio >= 20),
    ]
    rows.append(row("s from command to first batch, beyond imports", "< 3", start, ".2f", start < 3))
    rows.append(row(f"MB private to a worker, {len(private)} epochs", "< 300", max(private), ".0f", max(private) < 300))
    rows.append(row("MB of a worker, its share of shared pages (PSS)", "< 300", shared, ".0f", shared < 300))
    for name, where in (("worker_mb", "from the disk cache"), ("decoding_worker_mb", "decoding PNG")):
        resident = max(report[name]["Rss"])
        rows.append(row(f"MB of a worker in all (RSS), {where}", "< 300", resident, ".0f", resident < 300))
    rows.append(row("MB more after the last epoch than halfway", "≈ 0", growth, ".1f", growth < 1))
    workers = cores()
    for name, where in (("disk, workers", "from the disk cache"), ("none, workers", "decoding PNG")):
        rows.append(
            row(f"samples/s through {workers} workers together, {where}", "", workers * rate[name], ",.0f", True)
        )
    return rows


def _machine() -> dict[str, Any]:
    import numpy
    import PIL
    import torch

    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), platform.processor())
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    versions["pillow"] = PIL.__version__
    return {"cpu": name, "cores": cores(), "load_average": os.getloadavg(), **versions}


def _print(report: dict[str, Any]) -> None:
    machine, seconds = report["machine"], report["prepared_seconds"]
    print(f"{report['pairs']} pairs, LR {PATCH}, ×{SCALE}, batch {BATCH}; check and cache took {seconds:.1f} s")
    print(f"{machine['cpu']}, {machine['cores']} cores, load before {machine['load_average'][0]:.1f}")
    for row in report["table"]:
        print(f"{row['what']:<58}{row['target']:>9}{row['shown']:>10}  {'' if row['met'] else 'MISSED'}")


if __name__ == "__main__":
    main()
