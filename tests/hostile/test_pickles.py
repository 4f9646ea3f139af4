"""Pickles of strangers are refused with one message, within 1 GB and 10 seconds."""

from __future__ import annotations

import pickle
import pickletools
import random
import re

import generators
import pytest
from refusals import assert_refused_within_limits, refusal

from d2csr.checkpoints import load_model
from d2csr.checkpoints.official import load_arrays
from d2csr.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of the opcode STRING, in pickletools
CASES = generators.pickles()
HEAVY = {name for name, data in CASES.items() if len(data) > 10**5}


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", [name for name in CASES if name not in HEAVY])
def test_it_is_refused(name, tmp_path):
    path = tmp_path / "hostile.pkl"
    assert refusal(path, CASES[name]).startswith((f"{path}: refused", f"{path}: not "))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a key twice", "a dict with the key 'a' twice"),
        ("arrays of one buffer", "arrays that amount to more bytes than the file has"),
        ("one array many times", "arrays that amount to more bytes than the file has"),
        ("a memo index of 2,000,000,000", "memo index 2000000000 at opcode 2"),
        ("a dtype that writes through SETITEM", "an item of something that is not a dict"),
        ("an array made by the class, stride 0", "it calls numpy.ndarray"),
        ("a dtype with an item size", "an array of a type other than f2, f4 and f8"),
        ("a dtype alone", "a malformed array, or a type or function outside an array"),
        ("a shape: negative", "an array with an impossible shape"),
        ("25 dicts", "containers nested more than 20 levels"),
        ("lists that amount to 100^10 items", "shared containers that amount to more than 200,000 values"),
        ("a list in itself", "containers nested more than 20 levels"),
        ("the opcode INST", "the opcode INST, which no checkpoint needs"),
    ],
)
def test_the_message_names_what_is_wrong(name, message, tmp_path):
    assert re.search(message, refusal(tmp_path / "hostile.pkl", CASES[name]))


@pytest.mark.slow
def test_refusals_need_little_memory_and_time(load_limited):
    assert_refused_within_limits(load_limited, CASES)


def test_the_undamaged_array_is_read(tmp_path):
    path = tmp_path / "good.pkl"
    path.write_bytes(generators.official(generators.array(content=generators.raw(b"\0\0\x80?"))))
    assert load_arrays(path)["state_dict_D"]["head.0.weight"].tolist() == [1.0]


def fuzz(count, seed, path):
    """Load damaged pickles; return how many were read all the same."""
    read = 0
    for protocol in (2, 4, 5):
        data = generators.small_official(protocol)
        for broken in generators.damaged(data, count, seed):
            path.write_bytes(broken)
            try:
                load_model(path)
            except CheckpointError as error:
                read += "refused" not in str(error)
    return read


def test_damage_ends_in_a_message(tmp_path):
    assert fuzz(100, 0, tmp_path / "x.pkl") > 3  # damage in numbers is not noticed, but the pickle is read to its end


@pytest.mark.slow
def test_more_damage_ends_in_a_message(tmp_path):
    fuzz(8000, 1, tmp_path / "x.pkl")


@pytest.mark.slow
def test_shuffled_opcodes_end_in_a_message(tmp_path):
    data = generators.small_official(4)
    starts = [position for _, _, position in pickletools.genops(data)]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    generator = random.Random(0)
    for _ in range(8000):
        shuffled = list(parts)
        for _ in range(generator.choice((1, 2, 5))):
            a, b = (generator.randrange(2, len(parts)) for _ in range(2))
            shuffled[a], shuffled[b] = shuffled[b], shuffled[a]
        path = tmp_path / "x.pkl"
        path.write_bytes(b"".join(shuffled))
        with pytest.raises(CheckpointError):
            load_model(path)


def test_the_undamaged_pickle_is_read():
    assert pickle.loads(generators.small_official(2)).keys() == {"state_dict_D", "state_dict_C"}
