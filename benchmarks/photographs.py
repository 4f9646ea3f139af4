"""LR/HR pairs from free photographs of three Debian packages, or from any folder of images, for ``data=photographs``.

    apt-get install mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    python benchmarks/photographs.py photographs --scale 2 4
    python benchmarks/photographs.py photographs --images ~/Pictures
    d2csr-train data=photographs data.list_dir=photographs scale=4

The packages hold 27 photographs of 1.3 to 20 megapixels, of which 17 are for training, 4 for validation and 6 for test.
Drawings and renderings are left out. Each photograph is halved in linear light, so that neither JPEG artifacts nor
interpolated colours of the sensor are left. Of the result the square windows with the most detail are HR images; LR is
degraded as in the demo. All windows of a photograph are in the same split, and are the same at every scale. SOURCES.md
in the folder states author, licence and SHA-256 of each photograph. The same photographs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from debian_photographs import Photograph, installed
from PIL import Image
from tqdm import tqdm

from d2csr.checks import SCALES
from d2csr.data.degradation import degrade, linear_to_srgb, srgb_to_linear
from d2csr.data.images import SUFFIXES, read_rgb
from d2csr.data.lists import ImagePair, write_list
from d2csr.errors import DataError, UserError
from d2csr.files import atomic_write, cores

SPLITS = ("train", "val", "test")
MULTIPLE = 24  # of the sides of HR images: divisible by every scale, so that HR is the same at all of them
_STEP = 8  # pixels between candidates for a window
_STRIP = 256  # rows that are halved at once, for less memory


def main() -> None:
    arguments = _parser().parse_args()
    try:
        if arguments.images is None:
            photographs = installed(arguments.root)
        else:
            photographs = in_folder(arguments.images, arguments.val, arguments.test)
        crops = {"train": arguments.train_crops, "val": arguments.crops, "test": arguments.crops}
        settings = {"side": arguments.side, "crops": crops, "seed": arguments.seed}
        lists = write_set(arguments.folder, photographs, arguments.scale, processes=arguments.processes, **settings)
    except (UserError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print("\n".join(f"{path}: {len(pairs)} pairs" for path, pairs in lists.items()))
    print(f"Authors and licences: {arguments.folder / 'SOURCES.md'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the pairs and their lists")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="take all images of this folder instead")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are unpacked (default: /)")
    parser.add_argument("--scale", type=int, nargs="+", choices=SCALES, default=[4], help="default: 4")
    parser.add_argument("--side", type=_side, default=480, help="most pixels of HR images along a side (default: 480)")
    parser.add_argument("--train-crops", type=_positive, default=4, help="most windows of a photograph (default: 4)")
    parser.add_argument("--crops", type=_positive, default=2, help="the same for validation and test (default: 2)")
    parser.add_argument("--val", type=_share, default=0.15, help="share of --images to validate on (default: 0.15)")
    parser.add_argument("--test", type=_share, default=0.2, help="share of --images to test on (default: 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of blur and noise (default: 0)")
    parser.add_argument("--processes", type=_positive, default=cores())
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, got {text}")
    return int(text)


def _side(text: str) -> int:
    if _positive(text) < MULTIPLE:
        raise argparse.ArgumentTypeError(f"must be at least {MULTIPLE} pixels, got {text}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 0.5:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 0.5, got {text}")
    return share


def in_folder(folder: Path, val: float, test: float) -> list[Photograph]:
    """Return all images of a folder, ordered by name; shares of them are for validation and test.

    The choice follows from the names alone.

    Raises:
        DataError: the folder is missing or holds fewer than three images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(files) < len(SPLITS):
        raise DataError(f"{folder}: holds {len(files)} images; at least {len(SPLITS)} are needed, one for each split.")
    by_hash = sorted(files, key=lambda path: hashlib.sha256(path.name.encode(errors="surrogateescape")).digest())
    tests = max(1, round(test * len(files)))
    validations = max(1, round(val * len(files)))
    split = dict.fromkeys(by_hash[:tests], "test")
    split |= dict.fromkeys(by_hash[tests : tests + validations], "val")
    stems = [path.stem for path in files]
    names = {path: path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_") for path in files}
    return [Photograph(names[path], path, split.get(path, "train")) for path in files]


def write_set(
    folder: Path,
    photographs: Sequence[Photograph],
    scales: Sequence[int],
    *,
    side: int,
    crops: Mapping[str, int],
    seed: int,
    processes: int,
) -> dict[Path, list[ImagePair]]:
    """Write the pairs, ``photographs_x{scale}_{split}.txt`` and ``SOURCES.md``.

    Args:
        folder: made if it is missing; it can hold several scales.
        photographs: with their splits.
        scales: of :data:`d2csr.checks.SCALES`.
        side: the most pixels of an HR image along a side.
        crops: the most windows of a photograph, by split.
        seed: of blur and noise.
        processes: number of processes.

    Returns:
        The pairs of each list.

    Raises:
        DataError: a photograph cannot be read or is too small.
    """
    lists: dict[Path, list[ImagePair]] = {}
    with ProcessPoolExecutor(processes) as pool:
        write = partial(_write_pairs, folder=folder, scales=scales, side=side, crops=crops, seed=seed)
        work = pool.map(write, photographs)
        written = list(tqdm(work, "making pairs", len(photographs), unit="photograph", disable=None, leave=False))
    for scale in scales:
        for split in SPLITS:
            of_split = [windows for photo, windows in zip(photographs, written, strict=True) if photo.split == split]
            pairs = [pair for windows in of_split for pair in windows[scale]]
            lists[write_list(folder / f"photographs_x{scale}_{split}.txt", pairs)] = pairs
    with atomic_write(folder / "SOURCES.md") as partial_file:
        partial_file.write_text(_sources(photographs), encoding="utf-8")
    return lists


def _write_pairs(
    photograph: Photograph, folder: Path, scales: Sequence[int], side: int, crops: Mapping[str, int], seed: int
) -> dict[int, list[ImagePair]]:
    """Write the pairs of a photograph, and return them by scale, with paths relative to ``folder``."""
    image = halve(read_rgb(photograph.path))
    if min(image.shape[:2]) < MULTIPLE:
        height, width = image.shape[:2]
        raise DataError(f"{photograph.path}: {width}×{height} pixels after halving; at least {MULTIPLE} are needed.")
    pairs: dict[int, list[ImagePair]] = {scale: [] for scale in scales}
    for number, window in enumerate(detailed_windows(image, side, crops[photograph.split]), start=1):
        hr, name = image[window], f"{photograph.name}_{number}"
        for scale in scales:
            place = Path(f"x{scale}") / photograph.split
            pair = ImagePair(lr=place / f"{name}_LR{scale}.png", hr=place / f"{name}_HR.png")
            # From the name, so that another photograph does not change this one.
            lr = degrade(hr, scale, seed=zlib.crc32(f"{seed} {scale} {name}".encode(errors="surrogateescape")))
            for path, pixels in ((pair.hr, hr), (pair.lr, lr)):
                with atomic_write(folder / path) as partial_file:
                    Image.fromarray(pixels).save(partial_file, format="PNG")
            pairs[scale].append(pair)
    return pairs


def halve(image: np.ndarray) -> np.ndarray:
    """Return the mean of each 2×2 block in linear light, H/2×W/2×3 uint8; an odd last row or column is dropped."""
    height, width = (side // 2 for side in image.shape[:2])
    light = srgb_to_linear(np.arange(256) / 255.0)
    halved = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        rows = light[image[2 * top : 2 * min(top + _STRIP, height), : 2 * width]]
        blocks = rows.reshape(len(rows) // 2, 2, width, 2, 3)
        halved[top : top + _STRIP] = np.rint(255.0 * linear_to_srgb(blocks.mean(axis=(1, 3))))
    return halved


def detailed_windows(image: np.ndarray, side: int, count: int) -> list[tuple[slice, slice]]:
    """Return up to ``count`` windows of an image that do not overlap, the one with the most detail first.

    Detail is the sum of absolute differences between neighbouring pixels. A window has at most ``side`` pixels a side,
    a multiple of :data:`MULTIPLE`, and is shorter where the image is.
    """
    height, width = (min(side, extent) // MULTIPLE * MULTIPLE for extent in image.shape[:2])
    grey = image.sum(axis=2, dtype=np.int64)  # integers: sums do not depend on their order
    detail = np.zeros_like(grey)
    detail[1:] += np.abs(np.diff(grey, axis=0))
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops, lefts = (np.arange(0, extent + 1, _STEP) for extent in (grey.shape[0] - height, grey.shape[1] - width))
    score = (
        total[np.ix_(tops + height, lefts + width)]
        - total[np.ix_(tops, lefts + width)]
        - total[np.ix_(tops + height, lefts)]
        + total[np.ix_(tops, lefts)]
    )
    windows = []
    while len(windows) < count and score.max() >= 0:
        row, column = divmod(int(score.argmax()), len(lefts))
        top, left = int(tops[row]), int(lefts[column])
        windows.append((slice(top, top + height), slice(left, left + width)))
        score[np.ix_(np.abs(tops - top) < height, np.abs(lefts - left) < width)] = -1
    return windows


def _sources(photographs: Sequence[Photograph]) -> str:
    """Return the Markdown text of SOURCES.md."""
    rows = [
        f"| {p.name} | {p.split} | {p.path.name} | {p.author} | {p.licence} | "
        f"{hashlib.sha256(p.path.read_bytes()).hexdigest()} |"
        for p in photographs
    ]
    packages = sorted({photograph.package for photograph in photographs} - {""})
    place = f"Debian packages {', '.join(packages)}" if packages else "a folder of images"
    return "\n".join(
        [
            "# Sources of the photographs",
            "",
            f"From {place}. Changes: halved, cut, and degraded to LR. Share them under the same licence.",
            "",
            "| name | split | file | author | licence | SHA-256 of the file |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
