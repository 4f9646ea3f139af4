"""Super-resolving image files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from PIL import Image

from d2csr.data.images import read_rgb
from d2csr.errors import DataError
from d2csr.inference.upscale import upscale
from d2csr.models import D2CSR

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class InputImage:
    """An image to super-resolve.

    Attributes:
        path: the file.
        name: where the result goes below the output folder: the path below the input folder, as PNG.
    """

    path: Path
    name: Path


def find_images(source: str | Path) -> list[InputImage]:
    """Return the images that a path means: itself, or all in a folder and its subfolders, sorted by path.

    Raises:
        DataError: nothing is there, there is no image, or two results would have one name.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return [InputImage(source, Path(source.name).with_suffix(".png"))]
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder.")
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    images = [InputImage(path, path.relative_to(source).with_suffix(".png")) for path in files]
    if not images:
        raise DataError(f"{source}: holds no image ({', '.join(SUFFIXES)}).")
    taken: dict[Path, Path] = {}
    for image in images:
        if image.name in taken:
            raise DataError(f"{taken[image.name]} and {image.path} would both become {image.name}; rename one of them.")
        taken[image.name] = image.path
    return images


def upscale_files(
    model: D2CSR, images: Sequence[InputImage], output: str | Path, *, overwrite: bool = False
) -> list[str]:
    """Super-resolve images into a folder, as PNG; a result appears whole or not at all.

    Args:
        model: as :func:`d2csr.load_model` gives it.
        images: what :func:`find_images` found.
        output: the folder; made if it is missing.
        overwrite: make results anew that are there already, instead of skipping their images.

    Returns:
        A message for each image that could not be read; all others are done.

    Raises:
        DataError: the output folder cannot be written to.
    """
    problems = []
    for number, image in enumerate(images, start=1):
        target = Path(output).expanduser() / image.name
        if target.exists() and not overwrite:
            log.info("%d/%d %s is there already", number, len(images), target)
            continue
        try:
            sr = upscale(model, read_rgb(image.path))
        except DataError as error:
            problems.append(str(error))
            continue
        _save(Image.fromarray(sr), target)
        log.info("%d/%d %s", number, len(images), target)
    return problems


def _save(image: Image.Image, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}).") from None
    finally:
        partial.unlink(missing_ok=True)
