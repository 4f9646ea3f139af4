"""LPIPS, with a backbone of random weights: the real ones take a download."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchmetrics
import torchvision

from d2csr.errors import ConfigError, DataError
from d2csr.metrics.iqa import LPIPS

NAME = "alexnet-owt-7be5be79.pth"


@pytest.fixture
def backbone(monkeypatch):
    torch.manual_seed(0)
    made = torchvision.models.alexnet(weights=None)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: made)
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for downloads, and no way to download."""

    def refuse(*args, **kwargs):
        raise URLError("no way out")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def by_the_paper(backbone, x, y):
    """LPIPS as Zhang et al. define it, from the features after each ReLU of AlexNet."""
    shipped = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    heads = torch.load(shipped, map_location="cpu", weights_only=True)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # of ImageNet
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x, y = ((image - mean) / std for image in (x, y))
    total, number = 0.0, 0
    for layer in backbone.features[:12]:  # but for the last pooling
        x, y = layer(x), layer(y)
        if isinstance(layer, torch.nn.ReLU):
            a, b = (features / features.norm(dim=1, keepdim=True) for features in (x, y))
            head = heads[f"lin{number}.model.1.weight"]
            total += (head * (a - b).square()).sum(dim=1).mean().item()
            number += 1
    assert number == 5
    return total


def test_lpips_follows_the_definition_of_the_paper(backbone):
    hr = torch.rand(1, 3, 48, 64)
    sr = (hr + 0.2 * torch.randn_like(hr)).clamp(0, 1)
    with torch.no_grad():
        expected = by_the_paper(backbone, sr, hr)
    assert LPIPS()(sr, hr).item() == pytest.approx(expected, rel=1e-4)


def test_each_image_has_its_own_score(backbone):
    lpips = LPIPS()
    hr = torch.rand(3, 3, 40, 40)
    sr = hr + torch.tensor([0.0, 0.1, 0.3]).view(3, 1, 1, 1) * torch.randn_like(hr)
    values = [lpips(sr[i : i + 1], hr[i : i + 1]).item() for i in (0, 1, 2, 1)]
    assert values[0] == 0
    assert values[0] < values[1] < values[2]
    assert values[3] == values[1]


def test_values_beyond_the_range_are_clamped(backbone):
    lpips, hr = LPIPS(), torch.rand(1, 3, 40, 40)
    sr = hr + torch.randn_like(hr)
    assert lpips(sr, hr).item() == lpips(sr.clamp(0, 1), hr).item()


def test_an_image_too_small_for_the_backbone_is_named(backbone):
    lpips = LPIPS()
    assert lpips(torch.rand(1, 3, 31, 31), torch.rand(1, 3, 31, 31)).isfinite()
    with pytest.raises(DataError, match="at least 31 pixels a side, got 40×30"):
        lpips(torch.rand(1, 3, 30, 40), torch.rand(1, 3, 30, 40))


def test_without_a_network_it_says_where_the_weights_go(cache):
    with pytest.raises(ConfigError) as error:
        LPIPS()
    message = str(error.value)
    assert "the weights of AlexNet cannot be downloaded" in message
    assert "no way out" in message
    assert f"Put the file https://download.pytorch.org/models/{NAME} at {cache / NAME}" in message
    assert "or do without LPIPS" in message


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02}q\x00"])
def test_a_broken_file_of_weights_is_named(content, cache):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        LPIPS()
    assert f"{cache / NAME} cannot be read" in str(error.value)
