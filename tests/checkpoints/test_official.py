from __future__ import annotations

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from d2csr import load_model
from d2csr.checkpoints import read_checkpoint
from d2csr.checkpoints.official import read_official
from d2csr.errors import CheckpointError

CHANNELS_OF_IMAGES = [
    "divergence.input_shift.weight",
    "divergence.output_shift.weight",
    "divergence.output_shift.bias",
    "convergence.layers.0.weight",
]


@pytest.fixture
def content(golden):
    """The arrays of an official checkpoint, to be changed at will."""
    with (golden / "net-x2-f16-b1.pkl").open("rb") as file:
        return pickle.load(file)


@pytest.fixture
def written(tmp_path):
    def write(content, protocol=4):
        path = tmp_path / "official.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        return path

    return write


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_architecture_is_deduced_from_the_weights(scale, golden):
    settings, _ = read_official(golden / f"net-x{scale}-f16-b1.pkl")
    assert settings == {
        "scale": scale,
        "features": 16,
        "branching": [2, 2],
        "fusion_features": 64,
        "body": {"name": "rcab", "groups": 2, "blocks": 1, "reduction": 16},
    }


def test_a_deeper_narrower_architecture_is_deduced_from_the_weights(content, written):
    divergence = content["state_dict_D"]
    for body in ("1", "2", "11", "12", "21", "22"):
        group, last = f"body{body}.0.body.", f"body{body}.0.body.1"
        closing = {kind: divergence.pop(f"{last}.{kind}") for kind in ("weight", "bias")}
        for name in [name for name in divergence if name.startswith(f"{group}0.")]:
            divergence[name.replace(f"{group}0.", f"{group}1.")] = divergence[name].copy()
        divergence |= {f"{group}2.{kind}": array for kind, array in closing.items()}
    content["state_dict_C"] = {
        "fusion_final.0.conv.weight": np.zeros((24, 12, 3, 3), np.float32),
        "fusion_final.1.conv.weight": np.zeros((24, 24, 3, 3), np.float32),
        "fusion_final.2.conv.weight": np.zeros((4, 24, 3, 3), np.float32),
    }
    settings, _ = read_official(written(content))
    assert (settings["body"]["blocks"], settings["fusion_features"]) == (2, 24)


def test_the_shifts_keep_their_values(content, written):
    divergence = content["state_dict_D"]
    shift = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    divergence["sub_mean.weight"], divergence["sub_mean.bias"] = shift, np.full((1, 3, 1, 1), 7, np.float32)
    divergence["add_mean.weight"] = shift
    divergence["add_mean.bias"] = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    _, weights = read_official(written(content))
    assert weights["divergence.input_shift.weight"][:, :, 0, 0].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert weights["divergence.input_shift.bias"].tolist() == [7, 7, 7]
    assert weights["divergence.output_shift.weight"][:, :, 0, 0].tolist() == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
    assert weights["divergence.output_shift.bias"].tolist() == [3, 2, 1]


def test_fusion_reverses_the_channels_of_each_prediction(content, written):
    first = content["state_dict_C"]["fusion_final.0.conv.weight"]
    _, weights = read_official(written(content))
    order = [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]
    assert torch.equal(weights["convergence.layers.0.weight"], torch.from_numpy(first[:, order]))


def test_only_image_channels_are_permuted(content, golden):
    _, weights = read_official(golden / "net-x2-f16-b1.pkl")
    arrays = content["state_dict_D"] | content["state_dict_C"]
    assert len(weights) == len(arrays)
    for ours, array in zip(weights, arrays.values(), strict=True):
        if ours not in CHANNELS_OF_IMAGES:
            assert np.array_equal(weights[ours].numpy().ravel(), array.ravel()), ours


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read(protocol, content, written, golden):
    path = written(OrderedDict(content), protocol)
    lr = torch.rand(1, 3, 5, 4)
    assert torch.equal(load_model(path)(lr), load_model(golden / "net-x2-f16-b1.pkl")(lr))


def test_pickles_of_numpy_1_and_2_are_read(content, written, golden):
    official = (golden / "net-x2-f16-b1.pkl").read_bytes()
    assert b"numpy.core.multiarray" in official
    path = written(content, protocol=2)
    moved = path.read_bytes()
    if b"numpy._core" not in moved:  # written by numpy 1
        moved = moved.replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
    path.write_bytes(moved)
    assert b"numpy._core.multiarray" in moved
    _, weights = read_official(path)
    _, expected = read_official(golden / "net-x2-f16-b1.pkl")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_an_official_checkpoint_is_marked_official(golden):
    checkpoint = read_checkpoint(golden / "net-x2-f16-b1.pkl")
    assert checkpoint.official
    assert checkpoint.data == {}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("state_dict_D", "head.0.weight"),
        ("state_dict_D", "sub_mean.bias"),
        ("state_dict_D", "res_conv5.weight"),
        ("state_dict_D", "tail11.0.0.weight"),
        ("state_dict_D", "body22.0.body.0.body.0.weight"),
        ("state_dict_C", "fusion_final.0.conv.weight"),
        ("state_dict_C", "fusion_final.2.conv.weight"),
    ],
)
@pytest.mark.parametrize("shape", [None, (), (0,), (1, 1, 1, 1), (13, 13, 3, 3)])
def test_weights_that_make_no_network_are_refused(part, name, shape, content, written):
    if shape is None:
        del content[part][name]
    else:
        content[part][name] = np.zeros(shape, np.float32)
    path = written(content)
    with pytest.raises(CheckpointError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        {"state_dict_D": {}},
        {"state_dict_D": {"head.0.weight": [1.0]}, "state_dict_C": {}},
        {"state_dict_D": {1: np.zeros(3)}, "state_dict_C": {}},
    ],
)
def test_a_pickle_of_something_else_is_refused(content, written):
    with pytest.raises(CheckpointError, match="not an official D2C-SR checkpoint, with the arrays"):
        load_model(written(content))


@pytest.mark.parametrize("array", [np.array(["a"]), np.arange(3), np.ones(2, complex), np.ones(2, bool)])
def test_an_array_of_another_type_is_refused(array, written):
    with pytest.raises(CheckpointError, match=r"refused.*an array of a type other than f2, f4 and f8"):
        load_model(written({"state_dict_D": {"head.0.weight": array}, "state_dict_C": {}}))


def test_a_skip_that_no_leaf_has_is_refused(content, written):
    content["state_dict_D"]["res_conv9.weight"] = content["state_dict_D"]["res_conv8.weight"]
    with pytest.raises(CheckpointError, match="not an official D2C-SR checkpoint, with the arrays"):
        load_model(written(content))
