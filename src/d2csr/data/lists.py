"""List files: one LR/HR pair a line, ``LR_path HR_path``; or three paths, with the SR image of another method.

Paths are separated by a TAB or by spaces; other white space, such as U+3000, belongs to the path. A path that holds
spaces is quoted. Lines that begin with ``#`` and blank lines are ignored. A byte-order mark and Windows line ends are
accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2csr.errors import DataError, first_of
from d2csr.files import atomic_write, require_regular_file, user_path

MAX_BYTES = 64 * 2**20  # of a list: about 400,000 pairs

_SPACES = " \t"
# A quoted path, without escapes: a backslash is an ordinary character of a Windows path. Or a bare word.
_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|([^ \t]+)')


@dataclass(frozen=True)
class ImagePair:
    """Paths of an LR image and its HR ground truth; ``origin`` is ``list.txt:12`` or a folder, for messages."""

    lr: Path
    hr: Path
    origin: str = ""


def split_line(line: str) -> list[str]:
    """Return the paths in a line of a list: split at the TAB if there is one, else at spaces outside quotes."""
    line = line.strip(_SPACES)
    if not line.strip() or line.startswith("#"):
        return []
    if "\t" in line:
        words = [word.strip(_SPACES) for word in line.split("\t")]
        return [_unquote(word) for word in words if word]
    return [next(group for group in match.groups() if group is not None) for match in _WORD.finditer(line)]


def read_list(path: str | Path, root: str | Path | None = None) -> list[ImagePair]:
    """Return the pairs of a list, UTF-8 text of at most :data:`MAX_BYTES`, in its order; no image is opened.

    ``root`` is the folder of relative paths, by default the list's own folder.

    Raises:
        DataError: the list is missing, not a text file, too large, names no pair, or has malformed lines.
    """
    return [ImagePair(lr, hr, origin) for (lr, hr), origin in _read_rows(path, root, ("LR_path", "HR_path"))]


def read_sr_list(path: str | Path, root: str | Path | None = None) -> list[tuple[ImagePair, Path]]:
    """Read a list of three columns, ``LR_path HR_path SR_path``, like :func:`read_list`; return the pairs with SR."""
    rows = _read_rows(path, root, ("LR_path", "HR_path", "SR_path"))
    return [(ImagePair(lr, hr, origin), sr) for (lr, hr, sr), origin in rows]


def _read_rows(path: str | Path, root: str | Path | None, columns: Sequence[str]) -> list[tuple[list[Path], str]]:
    """Return the paths of each line and its origin."""
    path = user_path(path)
    base = path.parent if root is None else user_path(root)
    rows, malformed = [], []
    try:
        require_list(path)
        text = path.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a list of paths ({error}).") from None
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if words := split_line(line.removesuffix("\r")):
                rows.append((_paths(words, line, base, columns), f"{path}:{number}"))
        except DataError as error:
            malformed.append(f"{path}:{number}: {error}")
    if malformed:
        form = f"A line holds {len(columns)} paths, separated by a TAB or a space; quote a path that holds spaces."
        raise DataError("\n".join([*first_of(malformed), form]))
    if not rows:
        raise DataError(f"{path}: the list names no pair. Each line should read '{' '.join(columns)}'.")
    return rows


def write_list(path: str | Path, pairs: Iterable[ImagePair]) -> Path:
    """Write a list that :func:`read_list` reads back, atomically, and return its path.

    Raises:
        DataError: the list cannot be written, or a path cannot be in a list: it has a line break, or both kinds of
            quotes in addition to spaces.
    """
    path = user_path(path)
    text = "".join(_line(str(pair.lr), str(pair.hr), path) for pair in pairs)
    try:
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except (UnicodeEncodeError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({error}).") from None
    return path


def _paths(words: list[str], line: str, base: Path, columns: Sequence[str]) -> list[Path]:
    if len(words) != len(columns):
        raise DataError(f"expected '{' '.join(columns)}', found {len(words)} path(s): {line.strip()[:500]!r}")
    # A leading ./ keeps a ~ as it is, but a Path would remove it.
    return [base / (user_path(word) if word.startswith("~") or "\0" in word else word) for word in words]


def _line(lr: str, hr: str, path: Path) -> str:
    """Return a line that is read back as these two paths: plain as the official lists, else with a TAB, else quoted."""
    safe = [f"./{word}" if word.startswith("~") else word for word in (lr, hr)]
    for line in ("{} {}", "{}\t{}", '"{}" "{}"', "'{}' '{}'", "'{}'\t\"{}\"", "\"{}\"\t'{}'"):
        text = line.format(*safe)
        if not set(text) & set("\n\r\0\ufeff") and split_line(text) == safe:
            return f"{text}\n"
    raise DataError(f"{path}: cannot be written, since no line of a list can hold {lr!r} and {hr!r}. Rename them.")


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def require_list(path: Path) -> None:
    """Raise a DataError if a list is missing, no regular file, or larger than :data:`MAX_BYTES`."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not a list file. To use a folder of pairs, say data.root=…")
    if not path.exists():
        raise DataError(
            f"{path}: no such list. Write one with d2csr-lists, name yours with data.test_list=… (a training has "
            "data.train_list=… too), or name the data set's folder with data.root=…"
        )
    require_regular_file(path, MAX_BYTES)
