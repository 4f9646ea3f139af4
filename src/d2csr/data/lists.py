"""The list file: one LR/HR pair a line, ``LR_path HR_path``.

Paths are separated by a TAB or by spaces, a path that holds spaces is quoted, a relative path is taken from the list's
own folder (or from ``root``), ``#`` opens a comment line, blank lines count for nothing. A byte-order mark and Windows
line ends are accepted. The official lists (absolute paths, one space) are read as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d2csr.errors import DataError

# A quoted path (nothing is escaped within: a backslash is an ordinary character of a Windows path), or a bare word.
_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\S+)')


@dataclass(frozen=True)
class ImagePair:
    """One LR image and its HR ground truth.

    Attributes:
        lr: path of the LR image.
        hr: path of the HR image.
        origin: where the pair was named, ``list.txt:12`` or a folder, for messages.
    """

    lr: Path
    hr: Path
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.lr} {self.hr}" + (f" ({self.origin})" if self.origin else "")


def split_line(line: str) -> list[str]:
    """Split one line of a list into its paths: at the TAB where there is one, else at spaces outside quotes."""
    if "\t" in line:
        words = [word.strip() for word in line.split("\t")]
        return [_unquote(word) for word in words if word]
    return [next(group for group in match.groups() if group is not None) for match in _WORD.finditer(line)]


def read_list(path: str | Path, root: str | Path | None = None) -> list[ImagePair]:
    """Read a list file; the images themselves are not looked at.

    Args:
        path: the list, UTF-8 text.
        root: what relative paths are relative to; the list's own folder by default.

    Returns:
        The pairs in the order of the list.

    Raises:
        DataError: the list is missing, is no text, holds no pair, or has malformed lines (all of them are named, with
            their numbers).
    """
    path = Path(path)
    base = path.parent if root is None else Path(root)
    pairs, malformed = [], []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = split_line(line.strip())
        if len(words) != 2:
            malformed.append(
                f"{path}:{number}: expected 'LR_path HR_path', found {len(words)} path(s): {line.strip()!r}"
            )
            continue
        lr, hr = (base / Path(word).expanduser() for word in words)
        pairs.append(ImagePair(lr, hr, f"{path}:{number}"))
    if malformed:
        raise DataError(
            "\n".join(malformed[:20])
            + (f"\n... and {len(malformed) - 20} more" if len(malformed) > 20 else "")
            + "\nA line holds two paths, separated by a TAB or a space; quote a path that holds spaces."
        )
    if not pairs:
        raise DataError(f"{path}: the list names no pair. Each line should read 'LR_path HR_path'.")
    return pairs


def write_list(path: str | Path, pairs: Iterable[ImagePair]) -> Path:
    """Write a list that :func:`read_list` reads back; paths are written as they are, with a TAB where one has a space.

    Args:
        path: the list to write; missing folders are made.
        pairs: what to write, one a line.

    Returns:
        The path of the list.

    Raises:
        DataError: the list cannot be written.
    """
    path = Path(path)
    text = "".join(_line(str(pair.lr), str(pair.hr)) for pair in pairs)
    # Written under another name first: whoever reads the list meanwhile, or after a full disk, never finds half of it.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except (UnicodeEncodeError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({error}).") from None
    return path


def _line(lr: str, hr: str) -> str:
    separator = "\t" if " " in lr + hr or lr.startswith("#") else " "
    return f"{lr}{separator}{hr}\n"


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such list. Write one with d2csr-lists, name yours with data.train_list=… and "
            "data.test_list=…, or name the data set's folder with data.root=…"
        ) from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not a list file. To use a folder of pairs, say data.root=…") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a list of paths ({error}).") from None
