"""Benchmark of training step, validation and inference of d2csr and of the plain loop in ``plain.py``.

The paper's network at x4, with random weights and images, which change neither time nor memory. A training step of
d2csr runs in Lightning's Trainer and is timed from the hook before the batch to the hook after it, so it includes
Lightning's overhead. Each round measures each candidate once, time and memory in separate steps. The table lists
medians over the rounds. "times as fast" is the time of the plain loop divided by that of the candidate; "share" is the
memory of the candidate divided by that of the plain loop. Memory is the peak above the memory between steps (weights,
Adam's averages).

FLOP are those of the algorithm: recomputation and unused results do not count. MFU is the FLOP rate divided by that of
one large matrix product of the same kind, measured in the same rounds. On a GPU float32 has two kinds: inference of
d2csr and its validation compute in IEEE arithmetic, training steps and the plain loop in TF32, as torch does.

    python benchmarks/speed.py                     about 20 minutes; on a GPU if there is one
    python benchmarks/speed.py --quick             under 3 minutes on two CPU cores
    python benchmarks/speed.py --strips            inference at several strip lengths instead
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from gauges import Reading, clock, matmul_flops, memory
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from plain import PlainLoop
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from d2csr.commands.base import config_dir
from d2csr.inference import Inference
from d2csr.inference.strips import add_strips, zero_outputs
from d2csr.models import D2CSR
from d2csr.precision import tf32
from d2csr.training import D2CSRTask

# What a candidate does once, and how it is measured: it is called with a context manager, to put around the work.
Candidate = Callable[[Any], None]

PLAIN = "plain loop"


def main() -> None:
    arguments = _arguments()
    _quieten()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    groups = {"inference": _strip_lengths} if arguments.strips else GROUPS
    groups = {arguments.only: GROUPS[arguments.only]} if arguments.only else groups
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    peaks: dict[str, list[float]] = {"ieee": [], "tf32": [], "bf16": []}
    rows = []
    for name, make in groups.items():
        candidates, flops = make(arguments, device)
        times: dict[str, list[float]] = {candidate: [] for candidate in candidates}
        extra: dict[str, list[float]] = {candidate: [] for candidate in candidates}
        for _ in range(rounds):
            _measure_round(candidates, device, times, extra)
            for precision, found in peaks.items():
                found.append(_matmul(device, precision, arguments.quick))
        rows += _rows(name, times, extra, flops, {key: statistics.median(found) for key, found in peaks.items()})
        _print_table(rows[-len(candidates) :])
    result = {"machine": _machine(device), "arguments": vars(arguments), "rounds": rounds, "rows": rows}
    print(f"\n{result['machine']}")
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds, and smaller images for inference")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's)")
    parser.add_argument("--rounds", type=int, help="default: 7")
    parser.add_argument("--batch", type=int, help="default: 2 on a CPU, else 4")
    parser.add_argument("--patch", type=int, help="side of the LR patch (default: 48 on a CPU, else 96)")
    parser.add_argument("--image", type=int, help="side of the LR image (default: 256, quick: 96)")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--divergence", action="store_true", help="with the divergence loss, which most epochs lack")
    parser.add_argument("--compile", action="store_true", help="with torch.compile too; always on a GPU")
    parser.add_argument("--only", choices=GROUPS, help="one of the groups")
    parser.add_argument("--strips", action="store_true", help="inference at several strip lengths, nothing else")
    parser.add_argument("--json", default="runs/bench/speed.json", help="also write the table here ('' does not)")
    arguments = parser.parse_args()
    small = arguments.device == "cpu"
    arguments.batch = arguments.batch or (2 if small else 4)
    arguments.patch = arguments.patch or (48 if small else 96)
    arguments.image = arguments.image or (96 if arguments.quick else 256)
    return arguments


def _network(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"scale": 4, "features": arguments.features, "branching": [2, 2], "fusion_features": 64}


def _task(optimization: str, network: dict[str, Any], options: dict[str, Any]) -> D2CSRTask:
    """Build a task from the shipped configuration, with some settings of its own."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [f"optimization={optimization}", f"scale={network['scale']}"])
    cfg.model = OmegaConf.merge(cfg.model, {"network": network, **options})
    return instantiate(cfg.model, _convert_="all")


# The groups of candidates. The first of each is the plain one.


def _training(arguments: argparse.Namespace, device: torch.device) -> tuple[dict[str, Candidate], dict[str, float]]:
    settings = _network(arguments)
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(arguments.batch, 3, arguments.patch, arguments.patch, generator=generator)
    hr = torch.rand(arguments.batch, 3, 4 * arguments.patch, 4 * arguments.patch, generator=generator)
    weight = 2e-5 if arguments.divergence else 0.0

    def plain(detached: bool) -> Candidate:
        loop, batch = PlainLoop(settings, str(device), weight, detached), (lr.to(device), hr.to(device))
        return lambda gauge: _steps(lambda: loop.step(*batch), gauge)

    def ours(optimization: str, precision: str = "32-true", **options: Any) -> Candidate:
        torch.manual_seed(0)
        divergence = {"weight": weight, "after": -1}
        task = _task(optimization, settings, {"divergence": divergence, **options})
        return lambda gauge: _fit(task, {"lr": lr, "hr": hr}, device, precision, gauge)

    candidates = {
        PLAIN: plain(detached=False),
        "plain loop, detached": plain(detached=True),
        "alternating": ours("alternating"),
        "joint": ours("joint"),
        "joint, activation checkpointing": ours("joint", activation_checkpointing=True),
        "joint, bf16-mixed": ours("joint", "bf16-mixed"),
    }
    if arguments.compile or device.type == "cuda":
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        candidates["joint, compiled"] = ours("joint", compile=mode)
        candidates["joint, bf16-mixed, compiled"] = ours("joint", "bf16-mixed", compile=mode)
    flops = _training_flops(settings, lr, hr)
    return candidates, {name: flops["joint" if "joint" in name else "alternating"] for name in candidates}


def _validation(arguments: argparse.Namespace, device: torch.device) -> tuple[dict[str, Candidate], dict[str, float]]:
    settings = _network(arguments)
    lr, hr = torch.rand(1, 3, arguments.image, arguments.image), torch.rand(1, 3, *[4 * arguments.image] * 2)
    loop, batch = PlainLoop(settings, str(device)), (lr.to(device), hr.to(device))
    task = _task("joint", settings, {})
    candidates: dict[str, Candidate] = {
        PLAIN: lambda gauge: _once(lambda: loop.validate(*batch), gauge),
        "d2csr, the leaves' PSNR too": lambda gauge: _validate(task, {"lr": lr, "hr": hr}, device, gauge),
    }
    return candidates, dict.fromkeys(candidates, _flops(lambda: loop.infer(batch[0])))


def _inference(arguments: argparse.Namespace, device: torch.device) -> tuple[dict[str, Candidate], dict[str, float]]:
    loop, model, lr = _models(arguments, device)
    candidates: dict[str, Candidate] = {PLAIN: lambda gauge: _once(lambda: loop.infer(lr), gauge)}
    for name, inference in {"d2csr": Inference(), "d2csr, bf16": Inference(precision="bf16")}.items():
        candidates[name] = lambda gauge, inference=inference: _once(lambda: inference(model, lr), gauge)
    return candidates, dict.fromkeys(candidates, _flops(lambda: loop.infer(lr)))


def _strip_lengths(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[dict[str, Candidate], dict[str, float]]:
    loop, model, lr = _models(arguments, device)

    def in_strips(length: int) -> Candidate:
        return lambda gauge: _once(
            lambda: add_strips(zero_outputs(model, lr, keep_leaves=False), model, lr, length), gauge
        )

    candidates: dict[str, Candidate] = {PLAIN: lambda gauge: _once(lambda: loop.infer(lr), gauge)}
    candidates |= {f"strips of {length} rows": in_strips(length) for length in (4, 8, 16, 32, 64, 128)}
    return candidates, dict.fromkeys(candidates, _flops(lambda: loop.infer(lr)))


GROUPS = {"training step": _training, "inference": _inference, "validation": _validation}


def _models(arguments: argparse.Namespace, device: torch.device) -> tuple[PlainLoop, Any, torch.Tensor]:
    settings = _network(arguments)
    loop, model = PlainLoop(settings, str(device)), D2CSR(**settings).to(device).eval()
    model.load_state_dict(loop.network.state_dict())
    return loop, model, torch.rand(1, 3, arguments.image, arguments.image, device=device)


# Measuring


def _measure_round(
    candidates: dict[str, Candidate], device: torch.device, times: dict[str, list[float]], peaks: dict[str, list[float]]
) -> None:
    """Measure each candidate once, time first."""
    for name, candidate in candidates.items():
        readings: list[Reading] = []
        candidate(_gauges(device, readings))
        times[name] += [reading.seconds for reading in readings if reading.seconds]
        peaks[name] += [reading.peak for reading in readings if reading.peak is not None]


def _gauges(device: torch.device, readings: list[Reading]) -> Callable[[str], Any]:
    """Return a function from "time" or "memory" to the context manager that measures it."""

    @contextmanager
    def measure(what: str) -> Any:
        with (clock if what == "time" else memory)(device) as reading:
            yield
        readings.append(reading)

    return measure


# Steps of a training: two to warm up, two for time, one for memory, before which the heap is trimmed.
_CHUNK = (None, None, "time", "time", "memory")


def _steps(step: Callable[[], None], gauge: Any) -> None:
    for what in _CHUNK:
        if what is None:
            step()
            continue
        with gauge(what):
            step()


def _once(work: Callable[[], Any], gauge: Any) -> None:
    for what in ("time", "memory"):
        with gauge(what):
            work()


class _Stopwatch(pl.Callback):
    """Callback that measures each batch."""

    def __init__(self, gauge: Any, chunk: tuple[str | None, ...]) -> None:
        self.gauge, self.chunk = gauge, chunk

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, batch_idx: int) -> None:
        self.open = self.gauge(what) if (what := self.chunk[batch_idx]) else None
        if self.open:
            self.open.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.open:
            self.open.__exit__(None, None, None)

    def on_validation_batch_start(self, trainer: Any, task: Any, batch: Any, batch_idx: int, _: int = 0) -> None:
        self.on_train_batch_start(trainer, task, batch, batch_idx)

    def on_validation_batch_end(self, *_: Any) -> None:
        self.on_train_batch_end()


def _fit(task: Any, batch: dict[str, torch.Tensor], device: torch.device, precision: str, gauge: Any) -> None:
    _trainer(device, precision, _Stopwatch(gauge, _CHUNK)).fit(task, _loader(batch, len(_CHUNK)))
    task.zero_grad()
    task.to("cpu")


def _validate(task: Any, batch: dict[str, torch.Tensor], device: torch.device, gauge: Any) -> None:
    chunk = ("time", "memory")
    _trainer(device, "32-true", _Stopwatch(gauge, chunk)).validate(task, _loader(batch, len(chunk)), verbose=False)


def _loader(batch: dict[str, torch.Tensor], times: int) -> DataLoader[Any]:
    return DataLoader([batch] * times, batch_size=None)


def _trainer(device: torch.device, precision: str, stopwatch: _Stopwatch) -> pl.Trainer:
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1,
        precision=precision,
        max_epochs=1,
        callbacks=[stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=True,
    )


def _training_flops(settings: dict[str, Any], lr: torch.Tensor, hr: torch.Tensor) -> dict[str, float]:
    """Return the floating-point operations of a step of either mode, counted on one image of the batch."""
    loop = PlainLoop(settings, "cpu", detached=True)
    alternating = _flops(lambda: loop.step(lr[:1], hr[:1])) * len(lr)
    second_forward = _flops(lambda: loop.network.divergence(lr[:1]).detach()) * len(lr)
    return {"alternating": alternating, "joint": alternating - second_forward}


def _flops(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _matmul(device: torch.device, precision: str, quick: bool) -> float:
    size = 8192 if device.type == "cuda" else 1024 if quick else 2048
    with tf32(device.type == "cuda" and precision == "tf32"):
        return matmul_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32, size)


def _arithmetic(group: str, candidate: str) -> str:
    if "bf16" in candidate:
        return "bf16"
    return "ieee" if group != "training step" and candidate != PLAIN else "tf32"


# Reporting


def _rows(
    group: str,
    times: dict[str, list[float]],
    peaks: dict[str, list[float]],
    flops: dict[str, float],
    matmul: dict[str, float],
) -> list[dict[str, Any]]:
    rows = []
    for name in times:
        seconds, peak = statistics.median(times[name]), statistics.median(peaks[name]) if peaks[name] else None
        plain = statistics.median(peaks[PLAIN]) if peaks[PLAIN] else None
        rate = flops[name] / seconds
        rows.append(
            {
                "what": group,
                "candidate": name,
                "seconds": seconds,
                "all_seconds": times[name],
                "faster": statistics.median(times[PLAIN]) / seconds,
                "peak_mb": peak,
                "memory_share": peak / plain if peak is not None and plain else None,
                "gflop": flops[name] / 1e9,
                "gflops": rate / 1e9,
                "mfu": rate / matmul[_arithmetic(group, name)],
            }
        )
    return rows


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(f"\n| {rows[0]['what']} | median, s | times as fast | memory, MB | share | GFLOP | GFLOP/s | MFU |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        peak = "— | —" if row["peak_mb"] is None else f"{row['peak_mb']:.0f} | {row['memory_share']:.2f}"
        print(
            f"| {row['candidate']} | {row['seconds']:.3f} | {row['faster']:.2f} | {peak} | {row['gflop']:.0f} | "
            f"{row['gflops']:.0f} | {row['mfu']:.0%} |",
            flush=True,
        )


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}, Lightning {pl.__version__}"


def _quieten() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")


if __name__ == "__main__":
    main()
