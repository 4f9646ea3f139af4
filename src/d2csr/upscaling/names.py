"""Input images and the names of their results."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2csr.data.images import SUFFIXES
from d2csr.errors import DataError
from d2csr.files import user_path
from d2csr.upscaling.image_writer import result_name
from d2csr.upscaling.pipeline import Job, Options


@dataclass(frozen=True)
class InputImage:
    """An image to super-resolve."""

    path: Path
    name: Path  # its path below the input folder; the result has the same path below the output folder


def find_images(
    source: str | Path, output: str | Path | None = None, suffix: str = ""
) -> tuple[list[InputImage], list[str]]:
    """Find the input images.

    Args:
        source: an image; a folder, for all images in it and its subfolders; or a pattern with ``*``, ``**`` (any depth
            of folders), ``?`` and ``[…]``, for the files and folders that match.
        output: the folder for results. If it is inside the input folder, the images in it are left out.
        suffix: of the results' names. If the results are written into the input folder itself, images whose names end
            so are left out: they are results of a former run.

    Returns:
        The images, sorted by path, and a message for each folder that cannot be read.

    Raises:
        DataError: the path is missing or has no image, or the pattern has ``..`` after a wildcard.
    """
    source = user_path(source)
    if source.is_file():
        return [InputImage(source, Path(source.name))], []
    unreadable: list[OSError] = []
    if source.is_dir():
        top, files = source, _images_below(source, unreadable.append)
    elif glob.has_magic(str(source)):
        top, files = _images_matching(source, unreadable.append)
    else:
        raise DataError(f"{source}: {'neither a file nor a folder' if source.exists() else 'no such file or folder'}.")
    results = user_path(output or top).resolve()
    if results != top.resolve() and results.is_relative_to(top.resolve()):
        files = [path for path in files if not path.resolve().is_relative_to(results)]
    if suffix and results == top.resolve():
        former = re.compile(rf".*{re.escape(suffix)}(_(leaf|weight)\d+)?", re.DOTALL)
        files = [path for path in files if not former.fullmatch(path.stem)]
    images = [InputImage(path, path.relative_to(top)) for path in sorted(set(files))]
    reasons = {str(error.filename): error.strerror for error in unreadable}
    problems = [f"{path}: the folder cannot be read ({why}); its images are left out." for path, why in reasons.items()]
    if not images:
        verb = "holds" if source.is_dir() else "matches"
        raise DataError("\n".join([f"{source}: {verb} no image ({', '.join(SUFFIXES)}).", *problems]))
    return images, problems


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _images_below(folder: Path, report: Callable[[OSError], None]) -> list[Path]:
    paths = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=report) for name in names]
    return [path for path in paths if _is_image(path)]


def _images_matching(pattern: Path, report: Callable[[OSError], None]) -> tuple[Path, list[Path]]:
    """Return the folder before the first wildcard, and the images that match."""
    parts = pattern.parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    if ".." in parts[first:]:  # the results would be outside the output folder
        raise DataError(f"{pattern}: '..' after a wildcard is not supported. Name the folder itself.")
    for depth in range(first, len(parts)):
        for folder in _glob(Path(*parts[:depth])):
            if folder.is_dir():  # the glob module skips unreadable folders without a message
                next(os.walk(folder, onerror=report), None)
    matches = _glob(pattern)
    below = [file for path in matches if path.is_dir() for file in _images_below(path, report)]
    return Path(*parts[:first]), [path for path in matches if _is_image(path)] + below


def _glob(pattern: Path) -> list[Path]:
    return [Path(match) for match in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207 - absolute patterns too


def plan_jobs(images: Sequence[InputImage], output: str | Path, leaves: Sequence[str], options: Options) -> list[Job]:
    """Return the images whose results are missing, or all with ``overwrite``, and the files to write for each.

    They are named ``NAME.png``, ``NAME_leaf11.png`` …, ``NAME_weight11.png`` …. The suffix follows ``NAME``. Images of
    one folder that differ by their own suffix alone keep it in the name: ``a.jpg`` and ``a.png`` become ``a_jpg.png``
    and ``a_png.png``. Weights are always PNG.

    Raises:
        DataError: two results would have one name, or a result would replace an input image.
    """
    output = user_path(output)
    names = [result_name(image.name, options.file_format) for image in images]
    count = Counter(names)
    jobs: list[Job] = []
    sources: dict[Path, Path] = {}
    originals = {image.path.resolve() for image in images}
    for image, name in zip(images, names, strict=True):
        own = f"_{image.name.suffix[1:]}" if count[name] > 1 else ""
        targets = _targets(output / name.with_stem(name.stem + own + options.suffix), leaves, options.save)
        for path in targets.values():
            if path in sources:
                raise DataError(f"{sources[path]} and {image.path} would both become {path}; rename one of them.")
            if path.resolve() in originals:
                raise DataError(f"{path}: the result would replace an input image. Choose another output folder.")
            sources[path] = image.path
        if not options.overwrite:  # Path.exists raises an error for names that are too long
            targets = {key: path for key, path in targets.items() if not os.path.exists(path)}  # noqa: PTH110
        if targets:
            jobs.append(Job(len(jobs) + 1, image.path, targets))
    return jobs


def _targets(result: Path, leaves: Sequence[str], save: Collection[str]) -> dict[str, Path]:
    targets = {"sr": result} if "sr" in save else {}
    for leaf in leaves:
        if "leaves" in save:
            targets[f"leaf{leaf}"] = result.with_name(f"{result.stem}_leaf{leaf}{result.suffix}")
        if "weights" in save:
            targets[f"weight{leaf}"] = result.with_name(f"{result.stem}_weight{leaf}.png")
    return targets
