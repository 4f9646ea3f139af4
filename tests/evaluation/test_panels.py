from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from d2csr.data.lists import ImagePair
from d2csr.evaluation.panels import panel, panel_name, to_image
from d2csr.evaluation.report import ImageResult

NAMES = ["bicubic", "leaf 11", "leaf 12", "leaf 21", "leaf 22", "mean", "fusion"]
HEIGHT, WIDTH = 40, 60


def result():
    """Each image in a grey of its own; the weights of leaf 12 are the highest, those of 22 the lowest."""
    images = {name: torch.full((1, 3, HEIGHT, WIDTH), (number + 1) / 10) for number, name in enumerate(NAMES)}
    weights = torch.tensor([0.25, 0.4, 0.3, 0.05]).view(1, 4, 1, 1).expand(1, 4, HEIGHT, WIDTH)
    lr, hr = torch.full((1, 3, 20, 30), 0.9), torch.full((1, 3, HEIGHT, WIDTH), 0.95)
    return ImageResult(0, lr, hr, images, weights, {name: {"psnr": 30.0, "ssim": 0.9} for name in NAMES})


def cells(sheet):
    """The grey levels of the images on a panel, row by row, at the middle of each."""
    grey = np.asarray(sheet.convert("L"))
    columns, rows = sheet.width // WIDTH, sheet.height // (HEIGHT + 26)
    width, height = (sheet.width - 8) // columns, (sheet.height - 8) // rows
    return [
        [int(grey[8 + row * height + 26 + HEIGHT // 2, 8 + column * width + WIDTH // 2]) for column in range(columns)]
        for row in range(rows)
    ]


def test_every_image_has_its_cell():
    first, leaves, weights = cells(panel(result()))
    assert first == [round(255 * level) for level in (0.9, 0.1, 0.6, 0.7, 0.95)]  # LR, bicubic, mean, fusion, HR
    assert leaves == [51, 76, 102, 128, 255]  # the fifth place is empty
    assert weights == [round(255 * share) for share in (0.2 / 0.35, 1, 0.25 / 0.35, 0)] + [255]


def test_an_image_is_clamped_and_rounded():
    image = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.5]).expand(1, 3, 1, 6).clone()
    before = image.clone()
    assert np.asarray(to_image(image))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
    assert torch.equal(image, before)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert to_image(red).getpixel((0, 0)) == (255, 0, 0)


def test_images_are_named_by_their_lr_and_numbered_where_names_repeat():
    pairs = [ImagePair(Path(folder) / "x.png", Path("hr.png")) for folder in ("a", "b")]
    pairs.append(ImagePair(Path("a/y.png"), Path("hr.png")))
    assert [panel_name(pairs, index) for index in range(3)] == ["0000_x", "0001_x", "y"]
