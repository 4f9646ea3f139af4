"""Benchmark data set of the size and layout of RealSR (V3) ×4, made from the photographs of the demo.

It writes 500 training pairs, FOLDER/RealSR(V3)/{Canon,Nikon}/{Train,Test}/4/Canon_001_{HR,LR4}.png and so on. HR images
have about 1200×900 pixels, with slightly different sizes. Each is tiled with random crops of random photographs. LR is
HR blurred and scaled down, with noise. The files compress and decode like real photographs, but are not meant for
training.

    python benchmarks/make_dataset.py runs/bench-data
    python benchmarks/make_dataset.py runs/small --pairs 20 --size 300x200

An image follows from its number and the seed alone. Existing files are kept.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from d2csr.data.degradation import degrade
from d2csr.demo.demo_pairs import PHOTOS, read_photo
from d2csr.files import cores

SCALE = 4
_CAMERAS = ("Canon", "Nikon")
_NAMES = [name for names in PHOTOS.values() for name in names]
_TILE = 240  # the side of a tile; every photograph is as large
_TESTS = 8  # test pairs: validation needs some


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=500, help="training pairs (default: 500)")
    parser.add_argument("--size", default="1200x900", metavar="WxH", help="of HR, about (default: 1200x900)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=cores())
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    make_dataset(arguments.folder, arguments.pairs, (height, width), arguments.seed, arguments.processes)


def make_dataset(folder: Path, pairs: int, size: tuple[int, int], seed: int, processes: int) -> Path:
    """Write the pairs that are missing, and return the folder of the data set.

    Args:
        folder: the parent of ``RealSR(V3)``.
        pairs: number of training pairs.
        size: approximate height and width of HR.
        seed: of crops, blur and noise.
        processes: number of processes.
    """
    home = folder / "RealSR(V3)"
    scenes = []
    for key, (split, count) in enumerate((("Train", pairs), ("Test", _TESTS))):
        for number in range(count):
            camera = number % len(_CAMERAS)
            stem = f"{_CAMERAS[camera]}_{number // len(_CAMERAS) + 1:03d}"
            scenes.append((home / _CAMERAS[camera] / split / str(SCALE), stem, (seed, key, number)))
    with ProcessPoolExecutor(processes) as pool:
        made = pool.map(partial(_make_pair, size=size), scenes, chunksize=1)
        for _ in tqdm(made, "making pairs", len(scenes), unit="pair", disable=None, leave=False):
            pass
    return home


def _make_pair(scene: tuple[Path, str, tuple[int, ...]], size: tuple[int, int]) -> None:
    folder, stem, seed = scene
    hr_path, lr_path = folder / f"{stem}_HR.png", folder / f"{stem}_LR{SCALE}.png"
    if hr_path.is_file() and lr_path.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    height, width = (extent // SCALE * SCALE + SCALE * int(random.integers(-3, 4)) for extent in size)
    hr = _collage(random, height, width)
    for path, pixels in ((hr_path, hr), (lr_path, degrade(hr, SCALE, seed=int(random.integers(2**31))))):
        unfinished = path.with_suffix(f".{os.getpid()}.partial")
        Image.fromarray(pixels).save(unfinished, format="PNG", compress_level=4)
        unfinished.replace(path)


def _collage(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    canvas = np.empty((height, width, 3), np.uint8)
    for top, left in product(range(0, height, _TILE), range(0, width, _TILE)):
        photograph = _photograph(int(random.integers(len(_NAMES))))
        place = canvas[top : top + _TILE, left : left + _TILE]
        rows, columns, _ = place.shape
        y = int(random.integers(photograph.shape[0] - rows + 1))
        x = int(random.integers(photograph.shape[1] - columns + 1))
        tile = photograph[y : y + rows, x : x + columns]
        place[:] = tile[:: random.choice((1, -1)), :: random.choice((1, -1))]
    return canvas


@cache
def _photograph(number: int) -> np.ndarray:
    return read_photo(_NAMES[number])


if __name__ == "__main__":
    main()
