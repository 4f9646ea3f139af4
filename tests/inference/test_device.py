"""Inference on a GPU, as far as fake tensors show it: where the results are, and when the host waits."""

from __future__ import annotations

import pytest
import torch

from d2csr.inference import Inference, upscale
from d2csr.inference.plan import Footprint, Plan
from fake_gpu import fake_gpu, on_fake_gpu

SIZE = (40, 30)


@pytest.fixture
def model(random_model):
    made = random_model(2)
    Inference().plan(made, torch.empty(1, 3, *SIZE, device="meta"))  # traces what it needs, with real tensors
    return made


def infer(model, **settings):
    """Return the devices of the results, and the waits of the host."""
    count = settings.pop("count", 1)
    with fake_gpu() as waits:
        on_fake_gpu(model)
        lr = torch.rand(count, 3, *SIZE, device="cuda")
        waits.seen.clear()
        outputs = Inference(**{"memory": "2GB", **settings}).outputs(model, lr)
        return {part.device.type for part in outputs}, waits.seen


@pytest.mark.parametrize("settings", [{}, {"count": 2}, {"self_ensemble": True}, {"precision": "bf16"}], ids=str)
def test_results_stay_on_the_device_where_they_fit_and_nothing_waits(settings, model) -> None:
    assert infer(model, **settings) == ({"cuda"}, [])


def test_an_image_on_the_device_is_upscaled_there(model) -> None:
    with fake_gpu() as waits:
        image = torch.rand(3, *SIZE, device="cuda")
        on_fake_gpu(model)
        waits.seen.clear()
        assert upscale(model, image, memory="2GB").device.type == "cuda"
        assert waits.seen == []


def test_a_call_returns_images_on_the_cpu(model) -> None:
    with fake_gpu():
        on_fake_gpu(model)
        assert Inference("2GB")(model, torch.rand(1, 3, *SIZE, device="cuda")).device.type == "cpu"


def test_results_go_to_the_cpu_if_the_budget_holds_the_work_alone(model) -> None:
    """Two thirds of the result would fit beside the work."""
    footprint = Footprint(model, keep_leaves=True)
    result = footprint.outputs(*SIZE)
    work = footprint.peak(*SIZE, Plan(1)) - result
    memory = f"{(work + 2 * result // 3) / 1e6}MB"
    assert infer(model, memory=memory)[0] == {"cpu"}
    memory = f"{(work + result) / 1e6 + 0.01}MB"
    assert infer(model, memory=memory)[0] == {"cuda"}
    assert infer(model, memory=memory, count=2)[0] == {"cpu"}


def test_strips_whatever_the_budget_keep_a_result_that_does_not_fit_on_the_cpu(model) -> None:
    assert infer(model, mode="strips", memory="0.5MB")[0] == {"cpu"}
    assert infer(model, mode="strips")[0] == {"cuda"}
