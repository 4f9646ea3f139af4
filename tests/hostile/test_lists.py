"""Broken and hostile lists: each is read as it is meant, or refused with one message."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from d2csr.data import lists
from d2csr.data.lists import ImagePair, read_list, split_line, write_list
from d2csr.errors import DataError

READER = """
import resource, sys
from d2csr.data.lists import read_list
from d2csr.errors import DataError

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, -1))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
for path in sys.argv[1:]:
    try:
        print("read", len(read_list(path)))
    except DataError as error:
        print(ascii(str(error).splitlines()[0][:200]))
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""

# The content of a list, and a part of the message.
REFUSED = {
    "empty": (b"", "names no pair"),
    "blank": (b" \n\t\n\r\n", "names no pair"),
    "comments": (b"# /a /b\n  # /c /d\n", "names no pair"),
    "byte-order mark alone": (b"\xef\xbb\xbf", "names no pair"),
    "one path": (b"/a\n", "1: expected 'LR_path HR_path', found 1 path"),
    "three paths": (b"/a /b /c\n", "1: expected 'LR_path HR_path', found 3 path"),
    "three paths with TABs": (b"/a\t/b\t/c\n", "found 3 path"),
    "commas": (b"/a,/b\n", "found 1 path"),
    "ideographic space between": ("/a\u3000/b\n".encode(), "found 1 path"),
    "no-break space between": ("/a\u00a0/b\n".encode(), "found 1 path"),
    "ideographic spaces alone": ("\u3000\u3000\n".encode(), "names no pair"),
    "next line between": ("/a\u0085/b\n".encode(), "found 1 path"),
    "line separator between": ("/a\u2028/b\n".encode(), "found 1 path"),
    "form feed between": (b"/a\x0c/b\n", "found 1 path"),
    "old Mac line ends": (b"/a /b\r/c /d\r", "found 3 path"),
    "NUL": (b"/a\0 /b\n", "1: '/a\\x00': a path cannot hold a NUL character"),
    "NULs": (bytes(100), "found 1 path"),
    "no such user": (b"~nosuchuser/a /b\n", "1: ~nosuchuser/a: there is no such user"),
    "no such user in the second path": (b"/a ~nosuchuser\n", "1: ~nosuchuser: there is no such user"),
    "open quote": (b'"/my data/a /b /c\n', "found 4 path"),
    "empty quotes": (b'""\n', "found 1 path"),
    "Latin-1": ("/é /b\n".encode("latin-1"), "cannot be read as a list of paths"),
    "UTF-16": ("/a /b\n".encode("utf-16"), "cannot be read as a list of paths"),
    "UTF-16 without mark": ("/a /b\n".encode("utf-16-le"), "found 1 path"),
    "surrogates": (b"/a\xed\xa0\x80 /b\n", "cannot be read as a list of paths"),
    "overlong UTF-8": (b"/a\xc0\xaf /b\n", "cannot be read as a list of paths"),
    "PNG": (b"\x89PNG\r\n\x1a\n\xff\xfe", "cannot be read as a list of paths"),
    "gzip": (b"\x1f\x8b\x08\0", "cannot be read as a list of paths"),
    "long line": (b"x" * 10**6 + b"\n", "found 1 path"),
    "many short lines": (b"x\n" * 10**5, "and 99980 more"),
}

# The content of a list, and the pair that is read; {} is its folder.
READ = {
    "spaces": (b"  a   b  \n", ("{}/a", "{}/b")),
    "no line end": (b"a b", ("{}/a", "{}/b")),
    "Windows line ends": (b"a\tb\r\n", ("{}/a", "{}/b")),
    "byte-order mark": (b"\xef\xbb\xbfa b\n", ("{}/a", "{}/b")),
    "ideographic space within": ("/写\u3000真 /b\n".encode(), ("/写\u3000真", "/b")),
    "no-break space within": ("/a\u00a0b /b\n".encode(), ("/a\u00a0b", "/b")),
    "line separator within": ("/a\u2028b /b\n".encode(), ("/a\u2028b", "/b")),
    "vertical tab within": (b"/a\x0bb /b\n", ("/a\x0bb", "/b")),
    "escape sequence within": (b"/a\x1b[2J /b\n", ("/a\x1b[2J", "/b")),
    "tilde within": (b"a~ ./~b\n", ("{}/a~", "{}/~b")),
    "quote within": (b"it's b\n", ("{}/it's", "{}/b")),
    "backslashes": (b"C:\\a D:\\b\n", ("{}/C:\\a", "{}/D:\\b")),
    "hash within": (b"a#1 b#2\n", ("{}/a#1", "{}/b#2")),
    "parent folders": (b"../a ../b\n", ("{}/../a", "{}/../b")),
}

# Names that a pair of paths may have.
NAMES = [
    "a.png",
    "a b.png",
    " a.png",
    "a.png ",
    "#a.png",
    "# a b.png",
    "~a.png",
    "~nosuchuser",
    "it's.png",
    "it's a.png",
    'say "a".png',
    '"a.png"',
    "'a'",
    '"',
    "'",
    "写\u3000真.png",
    "a\u00a0b.png",
    "a\u2028b.png",
    "a\x0cb.png",
    "a\tb.png",
    "a\nb.png",
    "a\rb.png",
    "\ufeffa.png",
    "'\"a b\"'.png",
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_list_is_refused_with_its_path(name, tmp_path):
    content, part = REFUSED[name]
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_list(path)
    assert str(error.value).startswith(f"{path}:")
    assert part in str(error.value)
    assert len(str(error.value)) < 20_000


@pytest.mark.parametrize("name", READ)
def test_an_unusual_list_is_read_as_it_is_meant(name, tmp_path):
    content, paths = READ[name]
    (tmp_path / "list.txt").write_bytes(content)
    (pair,) = read_list(tmp_path / "list.txt")
    assert (str(pair.lr), str(pair.hr)) == tuple(path.format(tmp_path) for path in paths)


def test_the_corpus_is_large_enough():
    assert len(REFUSED) + len(READ) >= 40


def written(pairs, path):
    """Whether a list is written, and then also read back the same."""
    try:
        write_list(path, pairs)
    except DataError:
        return path.exists()
    assert [(pair.lr, pair.hr) for pair in read_list(path)] == [(path.parent / p.lr, path.parent / p.hr) for p in pairs]
    path.unlink()
    return True


@pytest.mark.parametrize("folder", ["", "/data", "/my data"])
def test_only_lists_that_can_be_read_back_are_written(folder, tmp_path):
    names = [
        (lr, hr)
        for lr in NAMES
        for hr in NAMES
        if not written([ImagePair(Path(folder, lr), Path(folder, hr))], tmp_path / "list.txt")
    ]
    plain = {name for name in NAMES if not set(name) & set("\n\r\ufeff\t'\"")}
    assert not [pair for pair in names if set(pair) <= plain]
    for name in ("a\nb.png", "a\rb.png"):
        assert (name, "a.png") in names


def test_random_names_are_read_back_or_not_written(tmp_path):
    generator = random.Random(0)

    def name():
        return Path("".join(generator.choices("abcd \t\"'#~./\u3000\n\\", k=6)) + "x")

    outcomes = [written([ImagePair(name(), name())], tmp_path / "list.txt") for _ in range(500)]
    assert 50 < sum(outcomes) < 450


def test_random_lines_never_end_in_another_error():
    generator = random.Random(1)
    for _ in range(5_000):
        line = "".join(generator.choices("ab \t\"'#~./\u3000\\\x00\x0b", k=generator.randrange(20)))
        assert all(isinstance(word, str) for word in split_line(line))


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link loop", "long name", "no such user", "NUL"])
def test_a_path_that_is_no_list_is_refused_without_waiting(kind, tmp_path):
    path = tmp_path / "list.txt"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link loop":
        path.symlink_to(path)
    else:
        others = {"device": "/dev/zero", "long name": "x" * 300, "no such user": "~nosuchuser/a", "NUL": "a\0b"}
        path = others[kind]
    with pytest.raises(DataError) as error:
        read_list(path)
    assert "\n" not in str(error.value)


def test_a_list_above_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    path.touch()
    os.truncate(path, lists.MAX_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read"))
    with pytest.raises(DataError, match="above the limit of 67,108,864"):
        read_list(path)


@pytest.mark.slow
def test_the_corpus_is_read_within_limits_of_memory_and_time(tmp_path):
    paths = []
    for number, (content, _) in enumerate([*REFUSED.values(), *READ.values()]):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_bytes(content)
    command = [sys.executable, "-c", READER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *messages, memory = done.stdout.splitlines()
    assert [message.startswith("read") for message in messages] == [False] * len(REFUSED) + [True] * len(READ)
    assert int(memory) * 1024 < 300 * 2**20


@pytest.mark.slow
def test_endless_and_large_files_take_little_memory_and_time(tmp_path):
    (tmp_path / "large.txt").touch()
    os.truncate(tmp_path / "large.txt", 10**12)
    os.mkfifo(tmp_path / "fifo.txt")
    paths = [tmp_path / "large.txt", tmp_path / "fifo.txt", Path("/dev/zero"), Path("/dev/stdin")]
    command = [sys.executable, "-c", READER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.PIPE)
    *messages, memory = done.stdout.splitlines()
    assert done.stderr == ""
    assert "above the limit" in messages[0]
    assert [("not a regular file" in message) for message in messages[1:]] == [True] * 3
    assert int(memory) * 1024 < 300 * 2**20
