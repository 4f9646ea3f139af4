from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from d2csr.data.batch import PADDING
from d2csr.errors import ConfigError
from d2csr.evaluation.baselines import ORACLES, bicubic
from d2csr.evaluation.evaluation_task import EvaluationTask, Scoring
from d2csr.inference import Inference
from d2csr.metrics import psnr, ssim

METHODS = ["bicubic", "leaf 11", "leaf 12", "leaf 21", "leaf 22", "mean", "fusion"]
SCORED = [*METHODS, *ORACLES]


def image(index, height=18, width=22):
    generator = torch.Generator().manual_seed(index + 7)
    hr = torch.rand(1, 3, 2 * height, 2 * width, generator=generator)
    return {"lr": hr[..., ::2, ::2], "hr": hr, "index": torch.tensor([index])}


def best_leaf(predictions, hr, block):
    """Choose the leaf of least squared error in each block, one block after the other."""
    chosen = torch.empty_like(hr)
    for top in range(0, hr.shape[2], block):
        for left in range(0, hr.shape[3], block):
            area = (..., slice(top, top + block), slice(left, left + block))
            errors = [((leaf[area] - hr[area]) ** 2).sum() for leaf in predictions.unbind(1)]
            chosen[area] = predictions[:, int(torch.stack(errors).argmin())][area]
    return chosen


@pytest.fixture
def evaluate_batches(network, tmp_path):
    """Test the network on batches and return the task."""

    def run(*batches, metrics=None, on_result=None, **settings):
        task = EvaluationTask({"fusion": network}, Scoring(**settings), tmp_path, scale=2, on_result=on_result)
        task.metrics.update(metrics or {})
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(accelerator="cpu", devices=1, **quiet)
        trainer.test(task, DataLoader(batches, batch_size=None), verbose=False)
        return task

    return run


def test_every_image_has_the_scores_of_every_method(evaluate_batches, network):
    batches = [image(3), image(0, 20, 17)]
    task = evaluate_batches(*batches)
    assert set(task.scores) == {0, 3}
    for batch in batches:
        lr, hr = batch["lr"], batch["hr"]
        with torch.no_grad():
            predictions = network.divergence(lr)
            sr, _ = network.convergence(predictions)
        chosen = [best_leaf(predictions, hr, block) for block in (1, 8)]
        made = [bicubic(lr, 2), *predictions.unbind(1), predictions.mean(1), sr, *chosen]
        found = task.scores[int(batch["index"])]["d2csr"]
        assert list(found) == SCORED
        assert [f["psnr"] for f in found.values()] == pytest.approx(
            [psnr(x, hr, scale=2).item() for x in made], abs=1e-5
        )
        assert [f["ssim"] for f in found.values()] == pytest.approx(
            [ssim(x, hr, scale=2).item() for x in made], abs=1e-6
        )
        assert all("lpips" not in f for f in found.values())


def test_every_image_has_the_statistics_of_its_leaves(evaluate_batches, network):
    batch = image(3)
    task = evaluate_batches(batch)
    with torch.no_grad():
        predictions = network.divergence(batch["lr"])
        weights = network.convergence(predictions)[1].numpy()
    leaves = predictions.squeeze(0).flatten(1).double().numpy()
    pairs = [(k, j) for k in range(4) for j in range(k)]
    between = {(k, j): np.sqrt(np.mean((leaves[k] - leaves[j]) ** 2)) for k, j in pairs}
    siblings = [between[1, 0], between[3, 2]]
    correlations = np.corrcoef(leaves - batch["hr"].flatten().double().numpy())
    assert task.leaves == {3: pytest.approx({
        "distance": np.mean(list(between.values())),
        "distance_same": np.mean(siblings),
        "distance_diff": (sum(between.values()) - sum(siblings)) / 4,
        "error_correlation": np.mean([correlations[pair] for pair in pairs]),
        "weight_entropy": -np.mean(np.sum(weights * np.log(weights), axis=1)) / np.log(4),
    }, rel=1e-4)}  # fmt: skip
    assert evaluate_batches(batch, compare=False).leaves == {}


def test_other_protocols_score_bicubic_and_fusion(evaluate_batches, network):
    batch = image(0)
    found = evaluate_batches(batch, protocols=("y", "cdc")).scores[0]
    assert list(found) == ["y", "cdc"]
    assert list(found["y"]) == SCORED
    assert list(found["cdc"]) == ["bicubic", "fusion"]
    with torch.no_grad():
        sr = network(batch["lr"])
    for protocol in found:
        expected = psnr(sr, batch["hr"], scale=2, protocol=protocol).item()
        assert found[protocol]["fusion"]["psnr"] == pytest.approx(expected, abs=1e-5)


def test_padding_has_no_scores(evaluate_batches):
    assert list(evaluate_batches(image(0), {**image(1), "index": torch.tensor([PADDING])}).scores) == [0]


def test_the_self_ensemble_changes_the_scores(evaluate_batches, network):
    batch = image(0)
    inference = Inference(self_ensemble=True)
    found = evaluate_batches(batch, inference=inference).scores[0]["d2csr"]["fusion"]["psnr"]
    expected = psnr(inference(network, batch["lr"]), batch["hr"], scale=2).item()
    assert found == pytest.approx(expected, abs=1e-6)
    assert found != pytest.approx(evaluate_batches(batch).scores[0]["d2csr"]["fusion"]["psnr"], abs=1e-4)


@pytest.mark.parametrize(("compare", "methods"), [(False, ["bicubic", "fusion"]), (True, SCORED), ("auto", SCORED)])
def test_the_leaves_are_compared_on_request(compare, methods, evaluate_batches):
    assert list(evaluate_batches(image(0), compare=compare).scores[0]["d2csr"]) == methods


def test_leaves_that_would_force_the_image_into_tiles_are_not_compared(evaluate_batches, network):
    batch, inference = image(0, 200, 200), Inference("150MB")
    assert inference.plan(network, batch["lr"], keep_leaves=True).tile is not None
    assert inference.plan(network, batch["lr"]).tile is None
    found = evaluate_batches(batch, image(1), inference=inference).scores
    assert list(found[0]["d2csr"]) == ["bicubic", "fusion"]
    assert list(found[1]["d2csr"]) == SCORED


def test_leaves_that_exceed_the_memory_are_not_compared(evaluate_batches, network):
    batch, inference = image(0, 400, 300), Inference("150MB")
    with pytest.raises(ConfigError):
        inference.plan(network, batch["lr"], keep_leaves=True)
    assert list(evaluate_batches(batch, inference=inference).scores[0]["d2csr"]) == ["bicubic", "fusion"]


def test_leaves_of_very_large_images_are_not_compared(evaluate_batches, monkeypatch):
    monkeypatch.setattr("d2csr.evaluation.evaluation_task._LARGE", 36 * 44)
    found = evaluate_batches(image(0), image(1, 19, 22)).scores
    assert list(found[0]["d2csr"]) == SCORED
    assert list(found[1]["d2csr"]) == ["bicubic", "fusion"]


def test_lpips_is_computed_for_every_method_by_the_main_protocol(evaluate_batches):
    class Brightness(torch.nn.Module):
        def forward(self, sr, hr):
            return (sr - hr).mean()

    batch = image(0)
    found = evaluate_batches(batch, protocols=("d2csr", "y"), metrics={"lpips": Brightness()}).scores[0]
    expected = (bicubic(batch["lr"], 2) - batch["hr"]).mean().item()
    assert found["d2csr"]["bicubic"]["lpips"] == pytest.approx(expected)
    assert [name for name, scores in found["d2csr"].items() if "lpips" in scores] == METHODS  # not the oracles
    assert all("lpips" not in scores for scores in found["y"].values())


def test_results_are_passed_on_with_the_folder(evaluate_batches, tmp_path):
    seen = []
    evaluate_batches(image(5), on_result=lambda result, folder: seen.append((result, folder)))
    [(result, folder)] = seen
    assert (result.index, folder) == (5, tmp_path)
    assert list(result.images) == METHODS
    assert all(one.shape == result.hr.shape for one in result.images.values())
    assert result.weights.sum(dim=1).allclose(torch.ones(1, 36, 44))
