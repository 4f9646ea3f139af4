from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.lists import ImagePair, read_list, write_list
from d2csr.errors import DataError


def read(tmp_path, content, root=None):
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(str(pair.lr), str(pair.hr)) for pair in read_list(path, root)]


@pytest.mark.parametrize(
    ("line", "lr", "hr"),
    [
        ("/d/lr.png /d/hr.png", "/d/lr.png", "/d/hr.png"),
        ("/d/lr.png\t/d/hr.png", "/d/lr.png", "/d/hr.png"),
        ("  /d/lr.png   /d/hr.png  ", "/d/lr.png", "/d/hr.png"),
        ("/my data/lr.png\t/my data/hr.png", "/my data/lr.png", "/my data/hr.png"),
        ("\"/my data/lr.png\" '/my data/hr.png'", "/my data/lr.png", "/my data/hr.png"),
        ('"/my data/lr.png"\t"/my data/hr.png"', "/my data/lr.png", "/my data/hr.png"),
        ("/RealSR(V3)/a_LR4.png /RealSR(V3)/a_HR.png", "/RealSR(V3)/a_LR4.png", "/RealSR(V3)/a_HR.png"),
        ("/d/it's.png /d/it's_hr.png", "/d/it's.png", "/d/it's_hr.png"),
        ("/d/é.png /d/写真.png", "/d/é.png", "/d/写真.png"),
    ],
)
def test_lines(tmp_path, line, lr, hr):
    assert read(tmp_path, line) == [(lr, hr)]


def test_paths_are_relative_to_the_lists_folder(tmp_path):
    assert read(tmp_path, "lr/a.png hr/a.png") == [(str(tmp_path / "lr/a.png"), str(tmp_path / "hr/a.png"))]


def test_paths_are_relative_to_the_root(tmp_path):
    assert read(tmp_path, "a.png /abs/b.png", root="/sets") == [("/sets/a.png", "/abs/b.png")]


def test_comments_and_blank_lines(tmp_path):
    assert read(tmp_path, "# lr hr\n\n   \n/a /b\n  # more\n/c /d\n") == [("/a", "/b"), ("/c", "/d")]


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbf/a /b\r\n/c\t/d\r\n") == [("/a", "/b"), ("/c", "/d")]


def test_origin_names_the_line(tmp_path):
    (tmp_path / "list.txt").write_text("# first\n/a /b\n")
    pair = read_list(tmp_path / "list.txt")[0]
    assert pair.origin == f"{tmp_path / 'list.txt'}:2"
    assert pair.origin == f"{tmp_path / 'list.txt'}:2"


def test_malformed_lines_are_all_named(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path, "/a /b\n/only\n/a /b /c\n")
    message = str(error.value)
    assert f"{tmp_path / 'list.txt'}:2: expected 'LR_path HR_path', found 1 path(s): '/only'" in message
    assert f"{tmp_path / 'list.txt'}:3: expected 'LR_path HR_path', found 3 path(s): '/a /b /c'" in message
    assert "list.txt:1" not in message
    assert "quote a path that holds spaces" in message


def test_many_malformed_lines_are_counted(tmp_path):
    with pytest.raises(DataError, match=r"list\.txt:20: (?s:.*)\.\.\. and 5 more") as error:
        read(tmp_path, "/only\n" * 25)
    assert "list.txt:21" not in str(error.value)


@pytest.mark.parametrize("content", ["", "\n# nothing\n"])
def test_empty_list(tmp_path, content):
    with pytest.raises(DataError, match=r"list\.txt: the list names no pair"):
        read(tmp_path, content)


def test_missing_list(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: no such list.*d2csr-lists"):
        read_list(tmp_path / "none.txt")


def test_folder_for_a_list(tmp_path):
    with pytest.raises(DataError, match=r"is a folder, not a list file.*data\.root"):
        read_list(tmp_path)


def test_binary_file_for_a_list(tmp_path):
    with pytest.raises(DataError, match=r"list\.txt: cannot be read as a list of paths"):
        read(tmp_path, b"\x89PNG\r\n\x1a\n\xff\xfe")


PATHS = [
    ("/d/a_LR4.png", "/d/a_HR.png"),
    ("/my data/a b.png", "/d/c.png"),
    ("/d/a.png", "/my data/RealSR(V3)/c d.png"),
    ("/d/写真 été.png", "/d/it's.png"),
]


def test_round_trip(tmp_path):
    path = write_list(tmp_path / "new" / "folder" / "list.txt", [ImagePair(Path(lr), Path(hr)) for lr, hr in PATHS])
    assert [(str(pair.lr), str(pair.hr)) for pair in read_list(path)] == PATHS


def test_plain_paths_are_written_in_the_official_format(tmp_path):
    path = write_list(tmp_path / "list.txt", [ImagePair(Path("/d/a_LR4.png"), Path("/d/a_HR.png"))])
    assert path.read_text() == "/d/a_LR4.png /d/a_HR.png\n"


def test_a_list_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    path.write_text("/old /list\n")

    def full_disk(self, text, encoding, newline):
        self.write_bytes(text.encode(encoding)[:5])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(DataError, match=r"list\.txt: cannot be written \(No space left on device\)"):
        write_list(path, [ImagePair(Path("/a"), Path("/b"))])
    assert path.read_text() == "/old /list\n"
    assert list(tmp_path.iterdir()) == [path]
