from __future__ import annotations

import pickle

import numpy as np
import pytest

from d2csr.checkpoints.official import load_arrays
from d2csr.errors import CheckpointError


def test_containers_of_arrays_come_back(tmp_path):
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"a": [np.arange(6.0).reshape(2, 3).T], "b": (1, "x", None)}))
    content = load_arrays(path)
    assert np.array_equal(content["a"][0], np.arange(6.0).reshape(2, 3).T)
    assert content["b"] == (1, "x", None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_not_run(protocol, trap, tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"state_dict_D": {}, "state_dict_C": {"x": trap}}, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"refused, nothing of it was run: it asks for \w+\.mkdir"):
        load_arrays(path)
    assert not trap.path.exists()
    pickle.loads(path.read_bytes())  # the trap is a real one
    assert trap.path.exists()


@pytest.mark.parametrize(
    "names",
    [
        b"cbuiltins\neval\n",
        b"cbuiltins\ngetattr\n",
        b"cnumpy\nload\n",
        b"cnumpy.core.multiarray\nfromfile\n",
        b"ccodecs\nopen\n",
        b"ccollections\nOrderedDict.fromkeys\n",
    ],
)
def test_a_function_that_no_array_needs_is_refused(names, tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(names + b"(V1\ntR.")
    with pytest.raises(CheckpointError, match=r"it asks for .*, which no checkpoint needs"):
        load_arrays(path)


def test_a_codec_other_than_that_of_bytes_is_refused(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(CheckpointError, match="it asks for the codec 'rot13'"):
        load_arrays(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is no pickle\n", b"\x80\x04", b"\x89PNG\r\n\x1a\n", b"\x00" * 64]
)
def test_a_file_without_a_pickle_is_refused(content, tmp_path):
    path = tmp_path / "broken.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"(?s)broken\.pkl: refused.*Expected a checkpoint of this package"):
        load_arrays(path)


def test_an_official_checkpoint_cut_anywhere_is_refused(golden, tmp_path):
    whole = (golden / "net-x2-f16-b1.pkl").read_bytes()
    path = tmp_path / "cut.pkl"
    for length in range(1, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="refused"):
            load_arrays(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pkl: refused.*No such file or directory"):
        load_arrays(tmp_path / "none.pkl")
