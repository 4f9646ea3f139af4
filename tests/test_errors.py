from __future__ import annotations

import errno

import pytest

from d2csr.errors import is_disk_full, is_out_of_memory, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/ö 日本.png: no such file\nsecond line", "a/ö 日本.png: no such file\nsecond line"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_control_characters_are_escaped(text, expected):
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("error", "full", "no_memory"),
    [
        (OSError(errno.ENOSPC, "kein Platz"), True, False),
        (OSError(errno.EDQUOT, "quota"), True, False),
        (OSError(errno.EACCES, "denied"), False, False),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"), True, False),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True, False),
        (MemoryError(), False, True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), False, True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
    ],
)
def test_full_disks_and_memories_are_recognised(error, full, no_memory):
    assert (is_disk_full(error), is_out_of_memory(error)) == (full, no_memory)
