"""Photographs in three Debian packages of desktop backgrounds: files, splits, authors and licences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from d2csr.errors import DataError

# Of each package: the folder of its images, and that folder's name in the package's copyright file.
PACKAGES = {
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature", "nature"),
    "lomiri-wallpapers-16.04": ("usr/share/backgrounds", "16.04"),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds", "20.04"),
}

# The photographs by split and package; all other images of the packages are drawn, painted or rendered. Each split has
# near and far scenes, fine textures and blurred grounds.
FILES = {
    "train": {
        "mate-backgrounds": (
            *("Aqua.jpg", "Blinds.jpg", "FreshFlower.jpg", "Garden.jpg", "GreenMeadow.jpg", "LadyBird.jpg"),
            *("RainDrops.jpg", "Storm.jpg", "Wood.jpg"),
        ),
        "lomiri-wallpapers-16.04": (
            *("analogpattern_by_Peter_Nerlich.jpg", "Bridge_by_Sander_Klootwijk.jpg", "Dragonfly_by_Bolly.jpg"),
            *("free_by_Peter_Nerlich.jpg", "greentock_by_Peter_Nerlich.jpg", "Picture_1A_by_freespace.jpg"),
            *("picosdeeuropa_by_Aitzol_Berasategi.jpg", "sunset_by_Aitzol_Berasategi.jpg"),
        ),
    },
    "val": {
        "mate-backgrounds": ("TwoWings.jpg",),
        "lomiri-wallpapers-16.04": (
            *("aitzgorri_by_Aitzol_Berasategi.jpg", "Picture_0B_by_freespace.jpg"),
            "seeding_by_Clements_Engelhardt.jpg",
        ),
    },
    "test": {
        "mate-backgrounds": ("Dune.jpg", "YellowFlower.jpg"),
        "lomiri-wallpapers-16.04": (
            *("friends_by_Aitzol_Berasategi.jpg", "life_by_Aitzol_Berasategi.jpg", "Wine_by_Jakkub_Mede.jpg"),
        ),
        "lomiri-wallpapers-20.04": ("Kleiber_by_Lukas_Baubkus.jpg",),
    },
}


@dataclass(frozen=True)
class Photograph:
    """A photograph: short name, file, split (``train``, ``val``, ``test``), and its source."""

    name: str
    path: Path
    split: str
    package: str = ""
    author: str = "not stated"
    licence: str = "not stated"


def installed(root: Path) -> list[Photograph]:
    """Return the photographs of the packages that are installed or unpacked in ``root``.

    Raises:
        DataError: a photograph is missing, or the copyright file of its package does not name it.
    """
    photographs, missing = [], set()
    for split, by_package in FILES.items():
        for package, names in by_package.items():
            folder, section = PACKAGES[package]
            stated = root / "usr/share/doc" / package / "copyright"
            for name in names:
                path = root / folder / name
                if not path.is_file() or not stated.is_file():
                    missing.add(package)
                    continue
                author, licence = _copyright(stated, f"{section}/{name}")
                short = Path(name).stem.split("_by_")[0]
                photographs.append(Photograph(short, path, split, package, author, licence))
    if missing:
        packages = [package for package in PACKAGES if package in missing]
        raise DataError(
            f"{root}: photographs of {', '.join(packages)} are missing. Install them: apt-get install "
            f"{' '.join(packages)}. Without root: apt-get download, dpkg -x FILE.deb FOLDER, and --root FOLDER. Or use "
            "images of your own: --images FOLDER."
        )
    return photographs


def _copyright(path: Path, file: str) -> tuple[str, str]:
    """Return the holders and the licence of a file by Debian's machine-readable copyright format 1.0.

    The last paragraph that matches counts.
    """
    found = None
    for fields in _paragraphs(path.read_text(encoding="utf-8")):
        if any(fnmatchcase(file, pattern) for pattern in fields.get("Files", "").split()):
            holders = [re.sub(r"\s*<[^>]*>.*", "", line).strip() for line in fields.get("Copyright", "").splitlines()]
            found = "; ".join(filter(None, holders)), fields.get("License", "").partition("\n")[0].strip()
    if found is None or not all(found):
        raise DataError(f"{path}: states no author and licence of {file}. Install the package again.")
    return found


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields = re.findall(r"^([\w-]+):(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        yield {name: "\n".join(line.strip() for line in value.strip().splitlines()) for name, value in fields}
