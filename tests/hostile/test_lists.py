"""Hostile lists: each is read as it should be, or gives a DataError; what is written is read back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from d2csr.data.lists import MAX_BYTES, ImagePair, read_list, write_list
from d2csr.errors import DataError

REFUSED = [
    b"a\0b.png c.png\n",
    b"~nosuchuser1234/a.png b.png\n",
    b"a.png ~nosuchuser1234/b.png\n",
    "a.png\u3000b.png\n".encode(),
    "a.png\u00a0b.png\n".encode(),
    "a.png\u2028b.png\n".encode(),
    "a.png\u0085b.png\n".encode(),
    b"a.png\x1cb.png\n",
    b"a.png\x0cb.png\n",
    b"a.png\n",
    b"a b c\n",
    b"a\tb\tc\n",
    b'"" ""x\n',
    b"\xff\xfea\0 \0b\0\n\0",
    b"\x80\x81 \x82\n",
    b"\xed\xa0\x80 b\n",
    b"",
    b"\n\n\n",
    b"# nothing\n",
    b"\xef\xbb\xbf",
    b"\x89PNG\r\n\x1a\n\0\0",
    b"PK\3\4\xff\xff",
    b"\t\n",
    b"a" * 100_000,
    b"x " * 50_000,
]
NAMES = [
    "a b.png",
    "a\u3000b.png",
    "a\u00a0b.png",
    "a\u2028b.png",
    "a\u0085b.png",
    "a\x0cb.png",
    "~nosuchuser1234",
    "~/a.png",
    "#a.png",
    '"a".png',
    "'a'.png",
    '"a b"',
    " a.png",
    "a.png ",
    "a  b.png",
    "\ufeffa.png",
    "写真 été.png",
    "a\\b c.png",
    "it's a.png",
    "a\x1b[31m.png",
    "$HOME.png",
    "a;b|c&d.png",
    "-rf",
    "%s.png",
    "{scale}.png",
]
UNWRITABLE = ["a\nb.png", "a\rb.png", "a\0b.png", "a\t b.png", "\"a' b\t.png", "a\r\nb.png"]


@pytest.mark.parametrize("content", REFUSED)
def test_refused_with_a_message(content, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt") as error:
        read_list(path)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("folder", ["", "/data/", "in here/"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back(name, folder, tmp_path):
    pairs = [ImagePair(Path(folder + name), Path("b.png")), ImagePair(Path("b.png"), Path(folder + name))]
    path = write_list(tmp_path / "list.txt", pairs)
    assert [(pair.lr, pair.hr) for pair in read_list(path)] == [
        (tmp_path / pair.lr, tmp_path / pair.hr) for pair in pairs
    ]


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_cannot_be_read_back_is_not_written(name, tmp_path):
    with pytest.raises(DataError, match=r"list\.txt: cannot name the pair .* Rename"):
        write_list(tmp_path / "list.txt", [ImagePair(Path(name), Path("b c.png"))])
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_text(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_list(tmp_path / "list.txt", [ImagePair(Path(os.fsdecode(b"\xff.png")), Path("b.png"))])


@pytest.mark.parametrize("seed", range(40))
def test_random_names_are_read_back_or_not_written(seed, tmp_path):
    random_ = random.Random(seed)
    alphabet = "ab ~#\"'\t\n\r\\/.\u3000\u00a0\u2028\ufeff"
    for _ in range(50):
        names = ["".join(random_.choices(alphabet, k=random_.randint(1, 8))) + "x" for _ in range(2)]
        pair = ImagePair(*map(Path, names))
        try:
            path = write_list(tmp_path / "list.txt", [pair])
        except DataError:
            continue
        assert [(read.lr, read.hr) for read in read_list(path)] == [(tmp_path / pair.lr, tmp_path / pair.hr)], names


@pytest.mark.parametrize("kind", ["/dev/zero", "FIFO", "a\0b", "sparse"])
def test_no_list_at_all(kind, tmp_path):
    path = tmp_path / "list.txt"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
    else:
        path = Path(kind)
    with pytest.raises(DataError):
        read_list(path)


@pytest.mark.slow
def test_an_endless_list_in_a_process_with_little_memory(tmp_path):
    code = (
        "import resource, sys; from d2csr.data.lists import read_list\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "try: read_list(sys.argv[1])\nexcept ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", code, "/dev/zero"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert "/dev/zero: not a regular file" in done.stdout
