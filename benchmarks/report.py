"""Size of an HTML report of many images, and the time that Chromium takes to open it.

    python benchmarks/report.py FOLDER            writes FOLDER/index.html with 100 images of 1200×900, and prints both

The images are parts of the photographs of the demo, enlarged, with the grain of a camera. The leaves are blurred HR
with noise, so that no network has to be trained. Opening needs Playwright and Chromium; without Chromium, only the size
is printed.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import d2csr.demo
from d2csr.data.lists import ImagePair
from d2csr.evaluation.baselines import bicubic
from d2csr.evaluation.report import ImageResult, Report
from d2csr.html_report import write_page, write_pictures

HEIGHT, WIDTH, SCALE = 900, 1200, 4
GRAIN = 0.012  # standard deviation, for values in [0, 1]
LEAF_NOISE = (0.004, 0.008, 0.008, 0.012)


def photograph_part(path: Path, random: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    factor = max(WIDTH / photograph.width, HEIGHT / photograph.height) * random.uniform(1.0, 1.2)
    photograph = photograph.resize((int(photograph.width * factor) + 1, int(photograph.height * factor) + 1))
    left = int(random.integers(0, photograph.width - WIDTH + 1))
    top = int(random.integers(0, photograph.height - HEIGHT + 1))
    part = np.array(photograph.crop((left, top, left + WIDTH, top + HEIGHT)))
    hr = torch.from_numpy(part).permute(2, 0, 1)[None] / 255
    return (hr + GRAIN * torch.randn(hr.shape, generator=generator)).clamp(0, 1)


def made_result(index: int, hr: torch.Tensor, generator: torch.Generator) -> ImageResult:
    lr = F.interpolate(hr, scale_factor=1 / SCALE, mode="bicubic", antialias=True).clamp(0, 1)
    upscaled = bicubic(lr, SCALE)
    details = hr - F.avg_pool2d(F.pad(hr, (2, 2, 2, 2), mode="reflect"), 5, 1)
    leaves = [upscaled + 0.6 * details + std * torch.randn(hr.shape, generator=generator) for std in LEAF_NOISE]
    logits = torch.randn(1, len(leaves), HEIGHT // 15, WIDTH // 15, generator=generator)
    weights = F.interpolate(logits, size=(HEIGHT, WIDTH), mode="bicubic").softmax(dim=1)
    fusion = sum(weights[:, number, None] * leaf for number, leaf in enumerate(leaves))
    named = {f"leaf {name}": leaf for name, leaf in zip(("11", "12", "21", "22"), leaves, strict=True)}
    images = {"bicubic": upscaled, **named, "mean": torch.stack(leaves).mean(dim=0), "fusion": fusion}
    return ImageResult(index, lr, hr, images, weights, {name: {"psnr": 30.0, "ssim": 0.8} for name in images})


def opening_times(page_path: Path, repeats: int) -> list[float]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        return []
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            start = time.perf_counter()
            page.goto(page_path.absolute().as_uri())  # until the load event
            seconds.append(time.perf_counter() - start)
            page.close()
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    photographs = sorted((Path(d2csr.demo.__file__).parent / "photographs").glob("*.jpg"))
    pairs, scores = [], []
    for index in range(arguments.images):
        hr = photograph_part(photographs[index % len(photographs)], random, generator)
        result = made_result(index, hr, generator)
        write_pictures(result, arguments.folder, arguments.images)
        pairs.append(ImagePair(Path(f"{index:03d}_LR{SCALE}.png"), Path(f"{index:03d}_HR.png"), "made"))
        scores.append(result.scores)
    path = write_page(Report(SCALE, pairs, {"d2csr": scores}), arguments.folder)
    size = sum(file.stat().st_size for file in arguments.folder.rglob("*") if file.is_file())
    print(f"{arguments.images} images: {size / 1e6:.0f} MB")
    if seconds := opening_times(path, repeats=6):
        print(f"opened in {min(seconds):.2f} s, the shortest of {len(seconds)} (longest {max(seconds):.2f} s)")


if __name__ == "__main__":
    main()
