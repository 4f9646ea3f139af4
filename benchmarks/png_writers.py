"""Benchmark of the threads in which d2csr-upscale encodes PNG files.

    python benchmarks/png_writers.py                  two minutes
    python benchmarks/png_writers.py --threads 1 2 4 8 --rounds 5

A folder of photographs of 400×300 pixels is super-resolved at ×4 by ``d2csr-upscale``, with different numbers of
encoding threads and with png_compression=1, in turns. The network is tiny (one EDSR block, two leaves) and runs on one
thread. The images of all runs must be equal in their pixels. ``encoding`` is the same writes alone, of results that are
there already, as if a GPU had computed them in no time. Other work on the machine lengthens the times: the shortest of
several rounds says most.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from skimage import data

from d2csr.checkpoints.own import save_model
from d2csr.commands import upscale
from d2csr.files import cores
from d2csr.models import build_network
from d2csr.upscaling import image_writer
from d2csr.upscaling.image_reader import ImageArray

SIZE, SCALE = (400, 300), 4
NETWORK = {"scale": SCALE, "branching": [2], "features": 4, "fusion_features": 4, "body": {"name": "edsr", "blocks": 1}}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def photographs(folder: Path, count: int) -> None:
    """Write photographs of scikit-image, mirrored and turned to have enough of them."""
    folder.mkdir()
    for number in range(count):
        name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
        image = Image.fromarray(getattr(data, name)()).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
        turned = image.rotate(180) if number // len(PHOTOGRAPHS) % 2 else image
        turned.save(folder / f"{number:02d}_{name}.png")


def measured(function: Callable[[], object]) -> dict[str, float]:
    """Return the wall-clock time and the processor time of a call, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def command(folder: Path, output: Path, compression: int) -> None:
    """Run d2csr-upscale."""
    settings = ["device=cpu", f"png_compression={compression}"]
    sys.argv = ["d2csr-upscale", f"ckpt={folder}/tiny.ckpt", f"input={folder}/lr", f"output={output}", *settings]
    upscale.main()


def encoding(results: list[ImageArray], output: Path, threads: int, compression: int) -> None:
    """Write images that are in memory."""
    output.mkdir()
    queue = image_writer.WriteQueue(threads)
    for number, image in enumerate(results):
        path = output / f"{number:02d}.png"
        queue.submit(
            lambda image=image, path=path: image_writer.write_image(image, path, png_compression=compression),
            image.colour.nbytes,
        )
    queue.close()


def pixels(folder: Path) -> list[np.ndarray]:
    """Return the pixels of all images of a folder."""
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def one_round(folder: Path, cases: list[tuple[int, int]], results: list[ImageArray]) -> dict[str, dict[str, float]]:
    """Measure the command and the encoding with each number of threads and each compression."""
    times = {}
    for threads, compression in cases:
        threads_of_command = mock.patch.object(image_writer, "cores", return_value=threads)
        with tempfile.TemporaryDirectory(dir=folder) as place, threads_of_command:
            output = Path(place) / "sr"
            name = f"threads {threads}, png_compression={compression}"
            times[f"d2csr-upscale, {name}"] = measured(lambda: command(folder, output, compression))  # noqa: B023
            written = pixels(output)
            if not results:
                results += [ImageArray(image) for image in written]
            if not all(np.array_equal(a, b.colour) for a, b in zip(written, results, strict=True)):
                raise SystemExit(f"{name}: the images differ from those of the first run.")
            again = Path(place) / "again"
            times[f"encoding, {name}"] = measured(lambda: encoding(results, again, threads, compression))  # noqa: B023
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(cores(), 8)}))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", default="runs/bench/png_writers.json", help="also write the numbers here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    cases = [*((threads, 6) for threads in arguments.threads), (max(arguments.threads), 1)]
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), []
        photographs(folder / "lr", arguments.images)
        torch.manual_seed(0)
        save_model(folder / "tiny.ckpt", build_network(NETWORK))
        one_round(folder, cases[:1], results)  # imports, and the images that all others must equal
        rounds = [one_round(folder, cases, results) for _ in range(arguments.rounds)]
    print(f"\n{arguments.images} images of {SIZE[0] * SCALE}×{SIZE[1] * SCALE}, {arguments.rounds} rounds, in s")
    print(f"{'':<50}{'shortest':>10}{'median':>10}{'CPU':>10}")
    for case in sorted(rounds[0]):
        wall, cpu = ([one[case][kind] for one in rounds] for kind in ("wall", "cpu"))
        print(f"{case:<50}{min(wall):>10.2f}{statistics.median(wall):>10.2f}{statistics.median(cpu):>10.2f}")
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        numbers = {"arguments": vars(arguments), "cores": cores(), "seconds": rounds}
        Path(arguments.json).write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
