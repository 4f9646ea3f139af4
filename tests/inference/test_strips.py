from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

import d2csr
from d2csr.inference import Inference
from d2csr.inference.strips import Outputs, add_strips, zero_outputs
from d2csr.inference.trace import strip_halo
from d2csr.models import D2CSR, PathEnsemble

GOLDEN = Path(__file__).parents[1] / "golden"
SCALES = (2, 3, 4, 8)
TREES = ((2, 2), (4,), (3, 3), (2, 2, 2), (1, 2))
SIZES = ((1, 1), (1, 7), (3, 5), (17, 23), (40, 9))


def in_strips(model, lr, length, **options):
    totals = zero_outputs(model, lr, keep_leaves=True)
    add_strips(totals, model, lr, length, **options)
    return Outputs(*totals)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_scale_and_size(scale, size, random_model, plain, difference) -> None:
    model = random_model(scale)
    lr = torch.rand(1, 3, *size)
    expected = plain(model, lr)
    for length in (1, 2, 3, 8):
        for actual, whole in zip(in_strips(model, lr, length), expected, strict=True):
            assert difference(actual, whole) < 1e-5


@pytest.mark.parametrize("branching", TREES, ids=str)
def test_any_tree(branching, random_model, plain, difference) -> None:
    model = random_model(2, branching)
    for size in ((1, 1), (13, 11), (9, 20)):
        lr = torch.rand(1, 3, *size)
        expected = plain(model, lr)
        for length in (1, 3, 5):
            for actual, whole in zip(in_strips(model, lr, length), expected, strict=True):
                assert difference(actual, whole) < 1e-5


@pytest.mark.parametrize("paths", [1, 3])
def test_paths_without_a_tree(paths, plain, difference) -> None:
    model = PathEnsemble(2, 8, {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 2}, paths).eval()
    lr = torch.rand(1, 3, 13, 11)
    for actual, whole in zip(in_strips(model, lr, 3), plain(model, lr), strict=True):
        assert difference(actual, whole) < 1e-5


@pytest.mark.parametrize("scale", SCALES)
def test_official_checkpoints(scale, plain, difference) -> None:
    model = d2csr.load_model(GOLDEN / f"net-x{scale}-f16-b1.pkl")
    lr = torch.rand(1, 3, 21, 15)
    for actual, whole in zip(in_strips(model, lr, 2), plain(model, lr), strict=True):
        assert difference(actual, whole) < 1e-5


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(24, 10), (10, 24)], ids=["rows", "columns"])
def test_the_halo_is_no_wider_than_needed(scale, size, random_model, plain, difference, monkeypatch) -> None:
    model = random_model(scale).double()
    lr = torch.rand(1, 3, *size, dtype=torch.float64)
    sr, _, weights = plain(model, lr)
    halo = strip_halo(model)
    assert difference(in_strips(model, lr, 6).sr, sr) < 1e-12
    monkeypatch.setattr("d2csr.inference.strips.strip_halo", lambda _: halo - 1)
    narrow = in_strips(model, lr, 6)
    assert difference(narrow.sr, sr) > 1e-9
    assert difference(narrow.weights, weights) > 1e-9


@pytest.mark.parametrize("body", ["test_wide", "test_dense", "test_quadratic", "swin", "nafnet", "imdn"])
def test_any_body(body, awkward_bodies, plain, difference) -> None:
    """A body sees the whole image, so strips are exact even for attention of all pixels to all."""
    torch.manual_seed(0)
    model = D2CSR(2, 16, [2, 2], 8, body).eval()
    for size in ((13, 11), (9, 20)):
        lr = torch.rand(1, 3, *size)
        for actual, whole in zip(in_strips(model, lr, 3), plain(model, lr), strict=True):
            assert difference(actual, whole) < 1e-5


def test_strips_cross_the_longer_side(random_model) -> None:
    """The halo of three rows is computed too, except beyond the ends."""
    model, seen = random_model(2), []
    model.convergence.register_forward_hook(lambda module, inputs, outputs: seen.append(inputs[0].shape[-2:]))
    for size, expected in (((20, 6), [(22, 12), (28, 12), (14, 12)]), ((6, 20), [(12, 22), (12, 28), (12, 14)])):
        seen.clear()
        in_strips(model, torch.rand(1, 3, *size), 8)
        assert seen == expected


def test_a_batch_and_double_precision(random_model, plain, difference) -> None:
    model = random_model(2)
    lr = torch.rand(3, 3, 9, 12)
    assert difference(Inference()(model, lr), plain(model, lr)[0]) < 1e-5
    model, lr = model.double(), lr.double()
    result = Inference()(model, lr)
    assert result.dtype == torch.float64
    assert difference(result, plain(model, lr)[0]) < 1e-13


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("16", torch.float16)])
def test_lower_precision_is_that_of_autocast(precision, dtype, random_model, difference) -> None:
    model = random_model(2)
    lr = torch.rand(1, 3, 12, 15)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        expected = model(lr).float()
    result = Inference(precision=precision)(model, lr)
    assert result.dtype == torch.float32
    assert difference(result, expected) < 2e-2  # a few roundings of bfloat16


def test_the_trunk_frees_maps_as_soon_as_possible(random_model) -> None:
    """While the last leaf's body works, only the path to it and the other leaves' features are alive."""
    model = random_model(2, (2, 2))
    alive = 0

    def count(*_):
        nonlocal alive
        gc.collect()
        maps = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (1, 16, 11, 13)]
        alive = len({o.data_ptr() for o in maps})

    model.divergence.bodies["22"].register_forward_pre_hook(count)
    with torch.no_grad():
        leaves = [features for _, features in model.divergence.trunk(torch.rand(1, 3, 11, 13))]
    assert len(leaves) == 4
    assert alive == 5  # head, node 2, leaves 11, 12, 21


def test_the_result_of_inference_can_be_changed_in_place(random_model) -> None:
    result = Inference().outputs(random_model(2), torch.rand(1, 3, 5, 6))
    for part in result:
        assert not part.is_inference()
        part += 1


def test_predictions_and_weights_only_on_request(random_model) -> None:
    outputs = Inference().outputs(random_model(2), torch.rand(1, 3, 5, 6), keep_leaves=False)
    assert outputs.predictions is None
    assert outputs.weights is None


def test_progress_ends_at_one(random_model) -> None:
    seen: list[float] = []
    Inference(self_ensemble=True)(random_model(2), torch.rand(2, 3, 5, 6), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    seen.clear()
    Inference(mode="tiles", tile=10)(random_model(2), torch.rand(1, 3, 31, 18), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
