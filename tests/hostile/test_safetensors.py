"""Safetensors files of strangers are refused with one message, within 1 GB and 10 seconds."""

from __future__ import annotations

import re

import generators
import pytest
from refusals import assert_refused_within_limits, count_refused, refusal

from d2csr.checkpoints import load_model

CASES = generators.safetensors_files()


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 60


def test_the_undamaged_export_is_read(tmp_path):
    path = tmp_path / "good.safetensors"
    path.write_bytes(generators.exported())
    assert load_model(path).settings == generators.NETWORK


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name, tmp_path):
    refusal(tmp_path / "hostile.safetensors", CASES[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a type: I64", "a is no tensor of F16, BF16, F32, F64, with all its bytes"),
        ("a shape: 100,000 dimensions", "a is no tensor of F16, BF16, F32, F64, with all its bytes"),
        ("places: overlapping", "its tensors overlap or leave gaps"),
        ("longer", "its tensors do not fill the file"),
        ("a name twice", "a name that is there twice"),
        ("an architecture: a key twice", "a name that is there twice"),
        ("a header of 1 GB", "its header has 1,073,741,824 bytes"),
        ("no metadata", "no export of this package"),
        ("a weight that is NaN", "has NaN or infinite values"),
    ],
)
def test_the_message_names_what_is_wrong(name, message, tmp_path):
    assert re.search(message, refusal(tmp_path / "hostile.safetensors", CASES[name]))


@pytest.mark.slow
def test_refusals_need_little_memory_and_time(load_limited):
    assert_refused_within_limits(load_limited, CASES)


def fuzz(count, seed, path):
    """Load damaged exports, half of them damaged in the header alone; return how many are refused."""
    data = generators.exported()
    end = 8 + int.from_bytes(data[:8], "little")
    headers = enumerate(generators.damaged(data[8:end], count, seed))
    return count_refused(
        path,
        (
            generators.safetensors_file(broken, data[end:]) if number % 2 else data[:8] + broken + data[end:]
            for number, broken in headers
        ),
    )


def test_damage_ends_in_a_message(tmp_path):
    assert fuzz(60, 0, tmp_path / "x.safetensors") > 40


@pytest.mark.slow
def test_more_damage_ends_in_a_message(tmp_path):
    assert fuzz(2000, 1, tmp_path / "x.safetensors") > 1200
