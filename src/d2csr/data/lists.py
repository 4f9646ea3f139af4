"""List files: one LR/HR pair a line, ``LR_path HR_path``.

Paths are separated by a TAB or by spaces (U+0020); a path that holds spaces is quoted. A relative path is below the
folder of the list, or below ``root``. Blank lines and lines that begin with ``#`` are ignored. A byte-order mark and
Windows line ends are accepted. The official lists (absolute paths, one space) are read without changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d2csr.errors import DataError
from d2csr.files import atomic_write, require_regular_file, user_path

MAX_BYTES = 64 * 2**20  # of a list: about 300,000 pairs
_SPACE = " \t\f\v"

# A quoted path without escapes, since a backslash is an ordinary character of Windows paths, or a word up to a space.
# Other space characters, such as U+00A0 and U+3000, are parts of names.
_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|([^ ]+)')


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
        words = [word.strip(_SPACE) for word in line.split("\t")]
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
        DataError: the list is missing, larger than :data:`MAX_BYTES`, no text, without a pair, or has malformed lines
            (all are named, with their numbers).
    """
    path = Path(path)
    base = path.parent if root is None else Path(root)
    pairs, malformed = [], []
    for number, line in enumerate(re.split("\r\n|\n|\r", _text(path)), start=1):
        line = line.strip(_SPACE)
        if not line or line.startswith("#"):
            continue
        words = split_line(line)
        if len(words) != 2:
            malformed.append(f"{path}:{number}: expected 'LR_path HR_path', found {len(words)} path(s): {_short(line)}")
            continue
        try:
            lr, hr = (base / (user_path(word) if word.startswith("~") or "\0" in word else word) for word in words)
        except DataError as error:
            malformed.append(f"{path}:{number}: {error}")
            continue
        pairs.append(ImagePair(lr, hr, f"{path}:{number}"))
    if malformed:
        raise DataError(
            "\n".join(malformed[:20])
            + (f"\n... and {len(malformed) - 20} more" if len(malformed) > 20 else "")
            + "\nA line holds two paths, separated by a TAB or a space (U+0020); quote a path that holds spaces."
        )
    if not pairs:
        raise DataError(f"{path}: the list names no pair. Each line should read 'LR_path HR_path'.")
    return pairs


def write_list(path: str | Path, pairs: Iterable[ImagePair]) -> Path:
    """Write a list that :func:`read_list` reads back; with a TAB or quotes if a path holds spaces.

    Args:
        path: the list to write; missing folders are made.
        pairs: what to write, one a line.

    Returns:
        The path of the list.

    Raises:
        DataError: the list cannot be written, or a path cannot be named in a list, as one with a line break.
    """
    path = Path(path)
    text = "".join(f"{_line(path, pair)}\n" for pair in pairs)
    try:
        content = text.encode("utf-8")
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    except (UnicodeEncodeError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({error}).") from None
    return path


def _line(path: Path, pair: ImagePair) -> str:
    """Return the line of a pair, in the first way of writing it that is read back as the same paths."""
    lr, hr = (f"./{name}" if name[0] in "~#\"'\ufeff" else name for name in (str(pair.lr), str(pair.hr)))
    for line in (f"{lr} {hr}", f"{lr}\t{hr}", f'"{lr}" "{hr}"', f"'{lr}' '{hr}'"):
        if not re.search("[\r\n\0]", line) and split_line(line.strip(_SPACE)) == [lr, hr]:
            return line
    raise DataError(
        f"{path}: cannot name the pair {str(pair.lr)!r}, {str(pair.hr)!r} in a list, because of a line break, TAB, "
        "quote or NUL in a name. Rename these files."
    )


def _unquote(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_dir():
            require_regular_file(path, MAX_BYTES)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such list. Write one with d2csr-lists, name yours with data.train_list=… and "
            "data.test_list=…, or name the data set's folder with data.root=…"
        ) from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not a list file. To use a folder of pairs, say data.root=…") from None
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as a list of paths ({error}).") from None


def _short(line: str) -> str:
    return repr(line) if len(line) <= 200 else f"{line[:200]!r}… ({len(line)} characters)"
