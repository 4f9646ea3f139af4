from __future__ import annotations

import json
import subprocess

import pytest
import torch

import d2csr.metrics
from d2csr.errors import ConfigError
from d2csr.metrics import PROTOCOLS, PSNR, SSIM, psnr, ssim

KINDS = [(PSNR, psnr), (SSIM, ssim)]

# Run on each of two ranks: rank 0 sees three images in two batches, rank 1 one image.
RANK = """
import json, sys
import torch
from d2csr.metrics import PSNR, SSIM

rank, meeting, images = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
sr, hr = torch.load(images, weights_only=True)
scores = []
for metric in (PSNR(2), SSIM(2)):
    for part in ((slice(0, 1), slice(1, 3)) if rank == 0 else (slice(3, 4),)):
        metric.update(sr[part], hr[part])
    scores.append(metric.compute().item())
print(json.dumps(scores))
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(4, 3, 24, 24, generator=generator)
    noise = torch.randn(4, 3, 24, 24, generator=generator) * torch.tensor([0.01, 0.05, 0.1, 0.3]).view(4, 1, 1, 1)
    return hr + noise, hr


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize(("kind", "score"), KINDS)
def test_the_mean_is_over_images_for_any_batch_sizes(kind, score, protocol, images):
    sr, hr = images
    metric = kind(scale=2, protocol=protocol)
    for batch in (slice(0, 3), slice(3, 4)):
        metric.update(sr[batch], hr[batch])
    alone = [score(sr[i : i + 1], hr[i : i + 1], scale=2, protocol=protocol).item() for i in range(4)]
    assert metric.compute().item() == pytest.approx(sum(alone) / 4, rel=1e-9)


@pytest.mark.parametrize(("kind", "score"), KINDS)
def test_a_step_returns_the_mean_of_its_own_batch(kind, score, images):
    sr, hr = images
    metric = kind(scale=2)
    first = metric(sr[:3], hr[:3])
    assert first.item() == pytest.approx(score(sr[:3], hr[:3], scale=2).mean().item(), rel=1e-9)
    metric(sr[3:], hr[3:])
    assert metric.compute().item() == pytest.approx(score(sr, hr, scale=2).mean().item(), rel=1e-9)


@pytest.mark.parametrize(("kind", "score"), KINDS)
def test_states_of_two_ranks_sum_to_the_mean_over_all_images(kind, score, images):
    sr, hr = images
    here, there = kind(scale=2), kind(scale=2)
    here.update(sr[:3], hr[:3])
    there.update(sr[3:], hr[3:])
    here.distributed_available_fn = lambda: True
    here.dist_sync_fn = lambda state, group: [state, there.total if state.is_floating_point() else there.count]
    assert here.compute().item() == pytest.approx(score(sr, hr, scale=2).mean().item(), rel=1e-9)


@pytest.mark.slow
def test_two_processes_agree_on_the_mean_over_all_images(images, python, tmp_path):
    torch.save(images, tmp_path / "images.pt")
    arguments = [str(tmp_path / "meeting"), str(tmp_path / "images.pt")]
    processes = [
        subprocess.Popen([python, "-c", RANK, str(rank), *arguments], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    expected = [psnr(*images, scale=2).mean().item(), ssim(*images, scale=2).mean().item()]
    assert [json.loads(output) for output in outputs] == [pytest.approx(expected, rel=1e-9)] * 2


@pytest.mark.parametrize("kind", [PSNR, SSIM])
def test_reset_clears_the_mean(kind, images):
    metric = kind(scale=2)
    metric.update(*images)
    metric.reset()
    metric.update(images[1], images[1])
    assert metric.compute().item() == pytest.approx(1.0 if kind is SSIM else float("inf"))


@pytest.mark.parametrize("kind", [PSNR, SSIM])
def test_an_unknown_protocol_is_refused_at_once(kind):
    with pytest.raises(ConfigError, match="must be one of d2csr, cdc, y"):
        kind(scale=2, protocol="psnr-y")


def test_the_metrics_are_listed_as_every_other_public_name() -> None:
    assert set(d2csr.metrics.__all__) <= set(dir(d2csr.metrics))  # for the API reference and for completion
    with pytest.raises(AttributeError, match=r"'d2csr\.metrics' has no attribute 'LPIPS'"):
        d2csr.metrics.LPIPS  # noqa: B018
