"""Finding images, and naming what is made of them."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2csr.errors import ConfigError, DataError
from d2csr.upscaling.image_writer import result_name

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
KINDS = ("sr", "leaves", "weights")


@dataclass(frozen=True)
class InputImage:
    """An image to super-resolve.

    Attributes:
        path: the file.
        name: its path below the input folder; below the output folder, that of its result, but for the suffix.
    """

    path: Path
    name: Path


def find_images(source: str | Path, output: str | Path | None = None) -> list[InputImage]:
    """Return the images that a path means, sorted by path.

    Args:
        source: an image; a folder, for all in it and its subfolders; or a pattern with ``*``, ``**`` for any depth of
            folders, ``?`` and ``[…]``, for what it matches, files and folders.
        output: where results go. A folder of results within the input folder is left out: they are no input.

    Raises:
        DataError: nothing is there, or there is no image.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return [InputImage(source, Path(source.name))]
    if source.is_dir():
        top, files = source, _below(source)
    elif glob.has_magic(str(source)):
        top = _fixed_part(source)
        matched = [Path(match) for match in glob.glob(str(source), recursive=True)]  # noqa: PTH207 - absolute ones too
        folders = [_below(path) for path in matched if path.is_dir()]
        files = [path for path in matched if _is_image(path)] + [file for folder in folders for file in folder]
    else:
        raise DataError(f"{source}: no such file or folder.")
    results = Path(output or top).expanduser().resolve()
    if results != top.resolve() and results.is_relative_to(top.resolve()):
        files = [path for path in files if not path.resolve().is_relative_to(results)]
    images = [InputImage(path, path.relative_to(top)) for path in sorted(set(files))]
    if not images:
        what = "holds" if source.is_dir() else "matches"
        raise DataError(f"{source}: {what} no image ({', '.join(SUFFIXES)}).")
    return images


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if _is_image(path)]


def _fixed_part(pattern: Path) -> Path:
    fixed = Path(pattern.anchor)
    for part in pattern.relative_to(pattern.anchor).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


@dataclass(frozen=True)
class Target:
    """A file to make.

    Attributes:
        path: of the file.
        kind: ``sr``, ``leaves`` or ``weights``.
        leaf: whose prediction or weight it is; empty for the result.
    """

    path: Path
    kind: str
    leaf: str = ""


def parse_kinds(save: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return what to save: ``sr``, ``leaves``, ``weights``, from a list or a text with commas.

    Raises:
        ConfigError: nothing is to be saved, or something unknown.
    """
    asked = save.split(",") if isinstance(save, str) else list(save or ())
    kinds = tuple(str(kind).strip() for kind in asked)
    if not kinds or not set(kinds) <= set(KINDS):
        raise ConfigError(f"save: must be of {', '.join(KINDS)}, got {', '.join(kinds) or 'nothing'}.")
    return kinds


def plan_targets(
    images: Sequence[InputImage],
    output: str | Path,
    leaves: Sequence[str],
    *,
    save: Collection[str] = ("sr",),
    form: str = "png",
) -> list[list[Target]]:
    """Return what is to be made of each image: ``NAME.png``, ``NAME_leaf11.png`` …, ``NAME_weight11.png`` ….

    Args:
        images: what :func:`find_images` found.
        output: the folder for the results.
        leaves: the names of the model's leaves.
        save: of :data:`KINDS`.
        form: one of :data:`d2csr.upscaling.image_writer.FORMATS`; weights are PNG always.

    Raises:
        ConfigError: there is no such format.
        DataError: two results would have one name, or a result would replace an image of the input.
    """
    output = Path(output).expanduser()
    planned = []
    taken: dict[Path, Path] = {}
    originals = {image.path.resolve() for image in images}
    for image in images:
        result = output / result_name(image.name, form)
        targets = [Target(result, "sr")] if "sr" in save else []
        for leaf in leaves:
            if "leaves" in save:
                targets.append(Target(result.with_name(f"{result.stem}_leaf{leaf}{result.suffix}"), "leaves", leaf))
            if "weights" in save:
                targets.append(Target(result.with_name(f"{result.stem}_weight{leaf}.png"), "weights", leaf))
        for path in (target.path for target in targets):
            if path in taken:
                raise DataError(f"{taken[path]} and {image.path} would both become {path}; rename one of them.")
            if path.resolve() in originals:
                raise DataError(f"{path}: the result would replace an image of the input. Choose another output.")
            taken[path] = image.path
        planned.append(targets)
    return planned
