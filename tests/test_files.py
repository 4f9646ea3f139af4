from __future__ import annotations

import os
from pathlib import Path

import pytest

from d2csr.errors import DataError
from d2csr.files import atomic_write, require_regular_file, user_path


def test_home_folders_are_expanded(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert user_path("~/a") == Path("/home/someone/a")
    assert user_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(("path", "message"), [("~nosuchuser/a", "there is no such user"), ("a\0b", "a NUL character")])
def test_an_impossible_path_is_a_data_error(path, message) -> None:
    with pytest.raises(DataError, match=message):
        user_path(path)


def test_only_regular_files_up_to_a_size_pass(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    require_regular_file(tmp_path / "file", 4)
    require_regular_file(tmp_path / "link")
    for path, message in (
        (tmp_path / "fifo", "fifo: not a regular file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "missing", "no such file"),
        (Path("a\0b"), "null byte"),
    ):
        with pytest.raises(DataError, match=message):
            require_regular_file(path)
    with pytest.raises(DataError, match="has 4 bytes, above the limit of 3"):
        require_regular_file(tmp_path / "file", 3)


def test_the_name_of_the_temporary_file_is_short_and_has_the_token(tmp_path) -> None:
    with atomic_write(tmp_path / f"{'é' * 120}.png", token="t" * 32) as partial:
        assert partial.name.startswith(f".{'é' * 32}.{'t' * 32}")
        assert len(os.fsencode(partial.name)) <= 255
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [f"{'é' * 120}.png"]
