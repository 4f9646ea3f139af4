"""Metrics of torchmetrics and pyiqa; the real weights take downloads, so networks have random ones."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchmetrics
import torchvision
from scipy.signal import convolve2d
from torch.nn import functional as F

from d2csr.errors import ConfigError, DataError
from d2csr.metrics.iqa import load_metrics


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    hr = F.interpolate(torch.rand(1, 3, 16, 20, generator=generator), scale_factor=4, mode="bicubic").clamp(0, 1)
    return hr + 0.05 * torch.randn(hr.shape, generator=generator), hr


def vif_by_the_paper(x, y):
    """Pixel-domain VIF of a grey image x with the reference y, values 0 to 255 (vifp_mscale of its authors)."""
    information = reference = 0.0
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        offsets = np.arange(size) - size // 2
        window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (size / 5) ** 2))
        window /= window.sum()
        if scale > 1:
            x, y = (convolve2d(image, window, mode="valid")[::2, ::2] for image in (x, y))
        mean_x, mean_y, xx, yy, xy = (convolve2d(plane, window, mode="valid") for plane in (x, y, x * x, y * y, x * y))
        var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
        gain = np.where(var_y > 1e-10, cov / np.maximum(var_y, 1e-10), 0)
        noise = np.where(gain < 0, var_x, var_x - gain * cov)
        gain = np.maximum(gain, 0)
        information += np.log10(1 + gain**2 * var_y / (np.maximum(noise, 1e-10) + 2)).sum()
        reference += np.log10(1 + var_y / 2).sum()
    return information / reference


def test_vif_follows_the_definition_of_the_paper(images):
    sr, hr = images
    planes = zip(*(image[0].clamp(0, 1).double().numpy() * 255 for image in (sr, hr)), strict=True)
    expected = np.mean([vif_by_the_paper(x, y) for x, y in planes])
    metric = load_metrics(["vif"])["vif"]
    assert metric(sr, hr).item() == pytest.approx(expected, rel=1e-4)
    assert metric(hr, hr).item() == pytest.approx(1, abs=1e-4)
    assert not metric.lower_is_better
    with pytest.raises(DataError, match="vif: needs images of at least 41 pixels a side, got 80×40"):
        metric(sr[..., :40, :], hr[..., :40, :])


@pytest.fixture
def vgg(monkeypatch):
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    backbone = types.SimpleNamespace(features=features)
    monkeypatch.setattr("torchmetrics.functional.image.dists.vgg16", lambda weights: backbone)
    return features


def dists_by_the_paper(vgg, x, y):
    """DISTS as Ding et al. define it: structure and texture of the image and of five stages of VGG-16."""
    shipped = Path(torchmetrics.__file__).parent / "functional" / "image" / "dists_models" / "weights.pt"
    weights = torch.load(shipped, map_location="cpu", weights_only=True)
    alpha, beta = (weights[name].flatten() for name in ("alpha", "beta"))
    hanning = torch.tensor([0.25, 0.5, 0.25])
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def stages(image):
        yield image
        image = (image - mean) / std
        for number, layer in enumerate(vgg[:30]):
            if isinstance(layer, torch.nn.MaxPool2d):
                window = (hanning[:, None] * hanning).expand(image.shape[1], 1, 3, 3)
                image = F.conv2d(image**2, window, stride=2, padding=1, groups=image.shape[1]).add(1e-12).sqrt()
            else:
                image = layer(image)
            if number in (3, 8, 15, 22, 29):
                yield image

    similarity, first = 0.0, 0
    for a, b in zip(stages(x), stages(y), strict=True):
        a, b = (features[0].flatten(1).double() for features in (a, b))
        last = first + len(a)
        texture = (2 * a.mean(1) * b.mean(1) + 1e-6) / (a.mean(1) ** 2 + b.mean(1) ** 2 + 1e-6)
        covariance = ((a - a.mean(1, keepdim=True)) * (b - b.mean(1, keepdim=True))).mean(1)
        structure = (2 * covariance + 1e-6) / (a.var(1, correction=0) + b.var(1, correction=0) + 1e-6)
        similarity += (alpha[first:last] * texture + beta[first:last] * structure).sum().item()
        first = last
    return 1 - similarity / (alpha.sum() + beta.sum()).item()


def test_dists_follows_the_definition_of_the_paper(vgg, images):
    sr, hr = images
    metric = load_metrics(["dists"])["dists"]
    with torch.no_grad():
        expected = dists_by_the_paper(vgg, sr.clamp(0, 1), hr)
    assert metric(sr, hr).item() == pytest.approx(expected, rel=1e-3)
    assert metric(hr, hr).item() == pytest.approx(0, abs=1e-5)
    assert metric.lower_is_better
    assert metric.description() == {"library": f"torchmetrics {torchmetrics.__version__}", "lower_is_better": True}


def test_dists_without_its_weights_says_where_they_go(monkeypatch, tmp_path):
    def refuse(weights):
        raise URLError("no way out")

    monkeypatch.setattr("torchmetrics.functional.image.dists.vgg16", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    with pytest.raises(ConfigError, match="dists: the weights of VGG-16 cannot be downloaded") as error:
        load_metrics(["dists"])
    assert f"Put the file https://download.pytorch.org/models/vgg16-397923af.pth at {place}" in str(error.value)


class Sharpness(torch.nn.Module):
    """A metric as pyiqa makes them, without reference."""

    metric_mode, lower_better = "NR", True

    def forward(self, image):
        assert image.min() >= 0
        assert image.max() <= 1
        return image.diff(dim=-1).abs().mean(dim=(1, 2, 3))


class Error(Sharpness):
    """The same with reference."""

    metric_mode, lower_better = "FR", False

    def forward(self, image, reference):
        return (image - reference).abs().mean(dim=(1, 2, 3)).unsqueeze(1)


def pyiqa_with(**metrics):
    """Stand in for pyiqa, with these metrics."""

    def create_metric(name, device):
        made = metrics[name]
        if isinstance(made, Exception):
            raise made
        return made().to(device)

    return types.SimpleNamespace(list_models=lambda: list(metrics), create_metric=create_metric, __version__="9.8.7")


def test_metrics_of_pyiqa_are_called_as_they_want(monkeypatch, images):
    monkeypatch.setitem(sys.modules, "pyiqa", pyiqa_with(niqe=Sharpness, fsim=Error))
    sr, hr = images
    metrics = load_metrics(["niqe", "fsim", "niqe"])
    assert list(metrics) == ["niqe", "fsim"]
    clamped = sr[0].clamp(0, 1).numpy()
    assert metrics["niqe"](sr, hr).item() == pytest.approx(np.abs(np.diff(clamped)).mean(), rel=1e-5)
    assert metrics["fsim"](sr, hr).item() == pytest.approx(np.abs(clamped - hr[0].numpy()).mean(), rel=1e-5)
    assert metrics["niqe"].description() == {"library": "pyiqa 9.8.7", "lower_is_better": True}
    assert metrics["fsim"].description() == {"library": "pyiqa 9.8.7", "lower_is_better": False}


def test_an_image_that_pyiqa_cannot_score_is_named(monkeypatch, images):
    class Picky(Sharpness):
        def forward(self, image):
            raise AssertionError("needs 96×96")

    monkeypatch.setitem(sys.modules, "pyiqa", pyiqa_with(niqe=Picky))
    with pytest.raises(DataError, match=r"iqa: niqe cannot score an image of 80×64 pixels \(needs 96×96\)"):
        load_metrics(["niqe"])["niqe"](*images)


def test_without_pyiqa_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(
        ConfigError, match=r"iqa: niqe needs pyiqa .*pip install 'd2csr\[iqa\]', or use lpips, dists, vif"
    ):
        load_metrics(["niqe"])


@pytest.mark.parametrize("error", [URLError("no way out"), RuntimeError("no way out\nmore"), KeyError("no way out")])
def test_weights_that_cannot_be_fetched_are_named(error, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyiqa", pyiqa_with(niqe=error))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"iqa: the weights of niqe cannot be downloaded or read .*no way out"
    ) as raised:
        load_metrics(["niqe"])
    assert "pyiqa.create_metric('niqe')" in str(raised.value)
    assert f"copy its ~/.cache/torch/hub to {tmp_path / 'hub'}" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nique", "pyiqa has no metric 'nique'"), ("psnr", "PSNR and SSIM are by protocol"), (3, "must be names such as")],
)
def test_unknown_names_are_refused(name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", pyiqa_with(niqe=Sharpness))
    with pytest.raises(ConfigError, match=f"iqa: .*{message}"):
        load_metrics(["niqe", name])
