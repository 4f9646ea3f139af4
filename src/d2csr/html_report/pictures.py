"""Pictures of one image for the report: comparison, crops, leaves, weights, errors and spectra."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from d2csr.colormap import colour_weights, inferno
from d2csr.evaluation.panels import difference_image, to_image
from d2csr.evaluation.report import BICUBIC, MEAN, ImageResult
from d2csr.files import atomic_write
from d2csr.html_report.encoding import REPORT_BYTES, Picture, PictureFolder, candidates
from d2csr.html_report.spectra import Spectrum, radial_spectrum, write_spectra

ERROR_LIMIT = 0.1  # the error at the top of its colour scale, for RGB in [0, 1]

_DESCRIPTION = "pictures.json"
_BEHIND_LEAVES = 2  # their mean and the fusion
_CROPS = 3  # of an image, at most
_SIDE, _LEAST = 64, 16  # of a crop, in HR pixels
_SHARE = 3  # a crop is at most a third of the image's shorter side


@dataclass(frozen=True)
class Crop:
    """A square of HR pixels."""

    left: int
    top: int
    side: int


def write_pictures(result: ImageResult, report_folder: Path, count: int) -> None:
    """Write the pictures of one image, in the best encoding in which those of all ``count`` images of a report fit."""
    folder = report_folder / folder_name(result.index)
    height, width = result.hr.shape[-2:]
    result = _on_cpu(result)
    number = len(result.images)
    full_size = 2 * number + (0 if result.weights is None else result.weights.shape[1])
    limit = REPORT_BYTES / count
    for encoding in candidates(height * width, full_size, limit):
        shutil.rmtree(folder, ignore_errors=True)  # of another evaluation, or of a better encoding
        folder.mkdir(parents=True)
        files = PictureFolder(folder, encoding)
        pictures = _write(result, files)
        if files.bytes() <= limit:
            break
    with atomic_write(folder / _DESCRIPTION) as partial:
        partial.write_text(json.dumps(pictures, default=asdict), encoding="utf-8")


def read_pictures(report_folder: Path, index: int) -> dict[str, Any] | None:
    """Return the description of the pictures of an image, or None if this machine did not write them."""
    path = report_folder / folder_name(index) / _DESCRIPTION
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def folder_name(index: int) -> str:
    """Return the folder of an image in that of the report. Its names hold nothing of the names of the user's files."""
    return f"images/{index:04d}"


def _on_cpu(result: ImageResult) -> ImageResult:
    images = {name: image.cpu().float() for name, image in result.images.items()}
    weights = None if result.weights is None else result.weights.cpu().float()
    return replace(result, lr=result.lr.cpu(), hr=result.hr.cpu(), images=images, weights=weights)


def _write(result: ImageResult, files: PictureFolder) -> dict[str, Any]:
    """Write all pictures, and return their description for the templates, with sizes as width and height in pixels."""
    kinds = _kinds(result)
    methods = [name for name, kind in kinds.items() if kind == "method"]
    errors = {name: squared_error(result.images[name], result.hr) for name in methods}
    by = compared([name for name in methods if result.weights is None or name != MEAN])
    scale = result.hr.shape[-1] // result.lr.shape[-1]
    crops = choose_crops({name: errors[name] for name in by}, scale)
    lines = [*((name, kinds[name], image) for name, image in result.images.items()), ("HR", "hr", result.hr)]
    spectra = [Spectrum(name, kind, *radial_spectrum(image)) for name, kind, image in lines]
    return {
        "encoding": files.encoding.name,
        "lr_size": (result.lr.shape[-1], result.lr.shape[-2]),
        "size": (result.hr.shape[-1], result.hr.shape[-2]),
        "comparison": _comparison(result, kinds, files),
        "crops": [(crop, _crop(result, kinds, crop, number, files)) for number, crop in enumerate(crops)],
        "crops_by": by,  # the methods whose errors chose the crops
        "leaves": _leaves(result, [name for name, kind in kinds.items() if kind == "leaf"], files),
        "errors": [
            _shown(name, "method", files.detail(f"error{number}", error_image(error)), error)
            for number, (name, error) in enumerate(errors.items())
        ],
        "spectra": write_spectra(spectra, files.path),
    }


def _shown(name: str, kind: str, picture: Picture, error: Tensor | None = None) -> dict[str, Any]:
    """Describe a picture to compare, of a squared error if it is known: ``kind`` is lr, method, leaf or hr."""
    return {"name": name, "kind": kind, "picture": picture, "rms": None if error is None else _root_mean(error)}


def _root_mean(squares: Tensor) -> float:
    return squares.mean().sqrt().item()


def _kinds(result: ImageResult) -> dict[str, str]:
    """Return whether each image is of a method or a leaf. The leaves precede their mean and the fusion."""
    names = list(result.images)
    end = len(names) - _BEHIND_LEAVES
    first = end if result.weights is None else end - result.weights.shape[1]
    return {name: "leaf" if first <= place < end else "method" for place, name in enumerate(names)}


def _comparison(result: ImageResult, kinds: Mapping[str, str], files: PictureFolder) -> list[dict[str, Any]]:
    entries = [_shown("LR", "lr", files.comparison("lr", to_image(result.lr)))]
    for number, (name, image) in enumerate(result.images.items()):
        entries.append(_shown(name, kinds[name], files.comparison(_file_name(number, name), to_image(image))))
    return [*entries, _shown("HR", "hr", files.comparison("hr", to_image(result.hr)))]


def _crop(
    result: ImageResult, kinds: Mapping[str, str], crop: Crop, number: int, files: PictureFolder
) -> list[dict[str, Any]]:
    scale = result.hr.shape[-1] // result.lr.shape[-1]
    hr = _cut(result.hr, crop)
    lr = to_image(_cut(result.lr, Crop(crop.left // scale, crop.top // scale, crop.side // scale)))
    lr = lr.resize((hr.shape[-1], hr.shape[-2]), Image.Resampling.NEAREST)
    entries = [_shown("LR", "lr", files.exact(f"crop{number}-lr", lr))]
    for place, (name, image) in enumerate(result.images.items()):
        part = _cut(image, crop)
        picture = files.exact(f"crop{number}-{_file_name(place, name)}", to_image(part))
        entries.append(_shown(name, kinds[name], picture, squared_error(part, hr)))
    return [*entries, _shown("HR", "hr", files.exact(f"crop{number}-hr", to_image(hr)))]


def _leaves(result: ImageResult, names: list[str], files: PictureFolder) -> list[dict[str, Any]]:
    """Describe the weight of each leaf in the fusion, and its difference from the mean of the leaves."""
    entries = []
    for number, name in enumerate(names):
        assert result.weights is not None
        weight = result.weights[0, number]
        difference = result.images[name] - result.images[MEAN]
        entries.append(
            {
                "name": name,
                "weight": files.detail(f"weight{number}", colour_weights(weight.numpy()).convert("RGB")),
                "weight_range": (weight.min().item(), weight.mean().item(), weight.max().item()),
                "difference": files.detail(f"difference{number}", difference_image(difference)),
                "rms": _root_mean(difference.square()),
            }
        )
    return entries


def compared(methods: Sequence[str]) -> list[str]:
    """Return the methods whose errors choose the crops: without bicubic, unless only one other method is left."""
    others = [name for name in methods if name != BICUBIC]
    return others if len(others) > 1 else list(methods)


def choose_crops(errors: Mapping[str, Tensor], scale: int) -> list[Crop]:
    """Return the squares in which the methods' errors differ most, without overlap, the largest difference first.

    The difference is the highest minus the lowest mean squared error of the methods in a square. Squares begin at
    multiples of a quarter of their side, at whole LR pixels. ``errors`` are the squared errors of at least one method,
    H×W; of one alone there is no difference.
    """
    height, width = next(iter(errors.values())).shape
    unit = 4 * scale  # the step is a quarter of the side, in whole LR pixels
    side = max(_LEAST, min(_SIDE, min(height, width) // _SHARE))
    side = min(max(unit, side // unit * unit), height, width)
    step = max(scale, side // unit * scale)
    means = torch.stack([F.avg_pool2d(error[None], side, step)[0] for error in errors.values()])
    spread = means.amax(dim=0) - means.amin(dim=0)
    crops: list[Crop] = []
    reach = math.ceil(side / step)
    while len(crops) < _CROPS and spread.max() > 0:
        row, column = divmod(int(spread.argmax()), spread.shape[1])
        crops.append(Crop(column * step, row * step, side))
        spread[max(0, row - reach + 1) : row + reach, max(0, column - reach + 1) : column + reach] = 0
    return crops


def squared_error(image: Tensor, hr: Tensor) -> Tensor:
    """Return the mean over R, G and B of the squared error, H×W; both 1×3×H×W, RGB, clamped to [0, 1] as shown."""
    return (image.clamp(0, 1) - hr).square().mean(dim=1)[0]


def error_image(error: Tensor) -> Image.Image:
    """Return a squared error, H×W, as an image: its root, in inferno from 0 to :data:`ERROR_LIMIT`."""
    share = (error.sqrt() / ERROR_LIMIT).clamp(0, 1).mul(255).round()
    image = Image.fromarray(share.byte().numpy())
    image.putpalette(inferno())
    return image.convert("RGB")


def _cut(image: Tensor, crop: Crop) -> Tensor:
    return image[..., crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]


def _file_name(number: int, method: str) -> str:
    """Return a name of plain letters for the picture of a method, of which the number alone has to be unique."""
    return f"{number:02d}-{re.sub(r'[^A-Za-z0-9.]+', '-', method)[:40].strip('-.')}".rstrip("-")
