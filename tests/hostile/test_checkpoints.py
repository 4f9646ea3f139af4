"""Own checkpoints and zip files of strangers are refused with one message, within 1 GB and 10 seconds."""

from __future__ import annotations

import re

import generators
import pytest
from refusals import assert_refused_within_limits, count_refused, refusal

from d2csr.checkpoints import load_model

CASES = generators.checkpoints()
HEAVY = {name for name, data in CASES.items() if len(data) > 10**6 or "900,000" in name}


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 40


def test_the_undamaged_checkpoint_is_read(tmp_path):
    path = tmp_path / "good.ckpt"
    path.write_bytes(generators.saved(generators.content()))
    assert load_model(path).settings == generators.NETWORK


def test_a_rewritten_archive_and_a_tensor_of_opcodes_are_read(tmp_path):
    path = tmp_path / "good.ckpt"
    path.write_bytes(generators.rewritten(generators.saved(generators.content())))
    assert load_model(path).settings == generators.NETWORK


@pytest.mark.parametrize("name", [name for name in CASES if name not in HEAVY])
def test_it_is_refused(name, tmp_path):
    refusal(tmp_path / "hostile.ckpt", CASES[name])


@pytest.mark.slow
def test_refusals_need_little_memory_and_time(load_limited):
    assert_refused_within_limits(load_limited, CASES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a body with 1,000 groups", "its settings need more than its .* tensors"),
        ("a body with 10,000,000 groups", r"body\.groups: must be a whole number from 1 to 1024, got 10000000"),
        ("a network with 4,000 features", "its settings need more than its .* numbers"),
        ("a network with 12,000 features", "features: must be a whole number from 1 to 4096, got 12000"),
        ("a network with six levels of nine", "its settings need 531,441 leaves"),
        ("small groups in one tensor", "its settings need more than its .* tensors"),
        ("a body with an unknown body", r"plugins=\[my_module\]"),
        ("a weight that is NaN", r"the parameter divergence\.head\.bias has NaN or infinite values"),
        ("a weight that is expanded", "a tensor whose elements share memory"),
        ("a format: a text", "malformed checkpoint: format: must be a whole number"),
        ("an average: [1]", "malformed checkpoint: average: must be a dict"),
        ("zip: compressed", "it is compressed"),
        ("zip: two entries of one member", "its members overlap"),
        ("zip: a wrong check sum", "Bad CRC-32 for file 'archive/byteorder'"),
        ("zip: a wrong check sum of a weight", "the check sum of archive/data/.* is wrong"),
        ("zip: a byte order of 100 MB", "its byteorder has more than 16 bytes"),
        ("a body of Transformers with attention tables of 1 GB", "tables of more than 256 MiB"),
        ("a body of Transformers with a perceptron of 10^300", r"mlp_ratio: .* at most 64, got 1e\+300"),
        ("a network with an unknown setting", "self: a network has no such setting"),
        ("a network with features, a tensor", r"network\.features: of the wrong type, Tensor"),
        ("a weight whose name has 5,000,000 characters", "a dict with a key of 5,000,008 characters"),
        ("pickle: bytes made 2,000 times of one text", "byte strings that amount to more than the file"),
        ("nested 100 deep", "nested more than 20 levels"),
        ("tensor: behind its storage", "a tensor that exceeds its storage"),
        ("tensor: far behind its storage", "a tensor that exceeds its storage"),
        ("storage: longer than its member", "a storage without a member of its size"),
        ("storage: shorter than its member", "a storage without a member of its size"),
        ("storage: used 1,000 times", "tensors that amount to more bytes than the file has"),
        ("pickle: os.system", "it asks for os.system"),
    ],
)
def test_the_message_names_what_is_wrong(name, message, tmp_path):
    assert re.search(message, refusal(tmp_path / "hostile.ckpt", CASES[name]))


def fuzz(count, seed, path):
    data = generators.saved(generators.content())
    refused = count_refused(path, generators.damaged(data, count, seed))
    # The pickle alone, in an archive without a fault.
    pickles = generators.damaged(generators.data_pickle(data), count, seed)
    return refused + count_refused(path, (generators.rewritten(data, data_pkl=broken) for broken in pickles))


def test_damage_ends_in_a_message(tmp_path):
    assert fuzz(60, 0, tmp_path / "x.ckpt") > 90


@pytest.mark.slow
def test_more_damage_ends_in_a_message(tmp_path):
    assert fuzz(1500, 1, tmp_path / "x.ckpt") > 2000
