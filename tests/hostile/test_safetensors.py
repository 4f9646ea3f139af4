"""Safetensors files of strangers are refused with one message, within 1 GB and 10 seconds."""

from __future__ import annotations

import generators
import pytest

from d2csr.checkpoints import load_model
from d2csr.errors import CheckpointError

CASES = generators.safetensors_files()


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 60


def test_the_undamaged_export_is_read(tmp_path):
    path = tmp_path / "good.safetensors"
    path.write_bytes(generators.exported())
    assert load_model(path).settings == generators.NETWORK


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name, tmp_path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(CASES[name])
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors: ") as error:
        load_model(path)
    assert len(str(error.value)) < 1000


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
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(CASES[name])
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


@pytest.mark.slow
def test_refusals_need_little_memory_and_time(load_limited):
    outcomes = load_limited(CASES)
    assert len(outcomes) == len(CASES)
    assert {name: error for name, error in outcomes.items() if error[0] != "CheckpointError"} == {}


def fuzz(count, seed, path):
    """Load damaged exports, half of them damaged in the header alone; return how many are refused."""
    data = generators.exported()
    end = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for number, broken in enumerate(generators.damaged(data[8:end], count, seed)):
        content = generators.safetensors_file(broken, data[end:]) if number % 2 else data[:8] + broken + data[end:]
        path.write_bytes(content)
        try:
            load_model(path)
        except CheckpointError:
            refused += 1
    return refused


def test_damage_ends_in_a_message(tmp_path):
    assert fuzz(60, 0, tmp_path / "x.safetensors") > 40


@pytest.mark.slow
def test_more_damage_ends_in_a_message(tmp_path):
    assert fuzz(2000, 1, tmp_path / "x.safetensors") > 1200
