"""Numbers of a summary, against counts on real tensors, a gradient, and the memory of a process that really trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from d2csr.errors import ConfigError
from d2csr.models import build_network
from d2csr.models.cost import on_meta
from d2csr.network_summary import summarize
from d2csr.training.step_memory import step_memory
from helpers import build_task

RCAB = {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 4}
TREE = {"scale": 2, "features": 8, "branching": [2, 2], "fusion_features": 6, "body": RCAB}
PATHS = {"architecture": "ensemble", "scale": 3, "features": 8, "body": {"name": "edsr", "blocks": 2}, "paths": 2}
SWIN = {**TREE, "body": {"name": "swin", "groups": 1, "layers": 2, "heads": 2, "window": 4}}


@pytest.mark.parametrize("settings", [TREE, PATHS, SWIN])
def test_parameters_and_flops_are_those_of_a_real_forward_pass(settings: dict[str, Any]) -> None:
    network, scale = build_network(settings), settings["scale"]
    # The counter does not know the fused attention of the CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, 14, 20))
    summary = summarize(on_meta(settings), 20 * scale - 1, 14 * scale - 1)
    assert (summary.lr_size, summary.sr_size) == ((20, 14), (20 * scale, 14 * scale))
    assert summary.total.flops == counter.get_total_flops() == 2 * summary.total.macs
    assert summary.total.parameters == sum(parameter.numel() for parameter in network.parameters())
    parts = {"bodies": network.divergence.bodies, "tails": network.divergence.tails, "fusion": network.convergence}
    for name, module in parts.items():
        count = sum(parameter.numel() for parameter in module.parameters())
        assert (summary.parts[name].parameters if count else 0) == count
    assert summary.parts["head"].flops == 2 * 27 * 8 * 14 * 20 * settings.get("paths", 1)


@pytest.mark.parametrize(
    "settings", [PATHS, {**TREE, "body": {"name": "edsr", "blocks": 1}}, {**TREE, "branching": [1], "body": RCAB}]
)
def test_the_receptive_field_is_the_extent_of_a_gradient(settings: dict[str, Any]) -> None:
    """With positive weights no ReLU is off and nothing cancels, so exactly the inputs in the field have a gradient."""
    summary = summarize(on_meta(settings), 64, 64)
    side = summary.receptive_field
    assert side is not None
    network = build_network(settings).double()
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, 0.005, 0.015)
    size = side + 10
    lr = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    s, middle = settings["scale"], size // 2
    _, weights = network.convergence(predictions := network.divergence(lr))
    pixels = slice(s * middle, s * (middle + 1))
    local = settings["body"]["name"] == "edsr"
    (predictions[..., pixels, pixels].sum() + (weights[..., pixels, pixels] ** 2).sum()).backward()
    assert lr.grad is not None
    rows = lr.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert summary.whole_image is not local
    assert len(rows) == (side if local else size)


@pytest.mark.parametrize(
    ("body", "pools"),
    [("rcab", True), ("imdn", True), ("nafnet", True), ("edsr", False), ("rrdb", False), ("swin", False)],
)
def test_channel_attention_sees_the_whole_image(body: str, pools: bool) -> None:
    assert summarize(on_meta({**TREE, "features": 16, "body": body}), 64, 64).whole_image is pools


@pytest.mark.parametrize("size", [(0, 720), (1280, -1), (1280.5, 720), (2**16 + 1, 8), ("1280", 720)])
def test_an_impossible_size_is_refused(size: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match=r"output_size\.[01]: must be a whole number from 1 to 65536"):
        summarize(on_meta(TREE), *size)


NETWORK = {
    "scale": 2,
    "features": 32,
    "branching": [2, 2],
    "fusion_features": 32,
    "body": {"name": "edsr", "blocks": 3},
}
# A process of its own, since other tests leave memory to reuse. It prints the bytes by which its peak grows.
MEASURE = """
import sys
import torch
from d2csr.inference import Inference
from d2csr.losses import DivergenceLoss
from d2csr.models import build_network

def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

kind, settings = sys.argv[1], eval(sys.argv[2])
torch.set_num_threads(1)
network = build_network(settings) if kind == "infer" else None
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = peak()
if kind == "infer":
    Inference().outputs(network, torch.rand(1, 3, 360, 640))
else:
    network = build_network(settings)
    criterion, divergence = torch.nn.MSELoss(), DivergenceLoss([2, 2], 2e-5, 5e-5, 0.8, "batch")
    optimizer = torch.optim.Adam(network.parameters())
    lr, hr = torch.rand(8, 3, 64, 64), torch.rand(8, 3, 128, 128)
    for _ in range(2):
        predictions = network.divergence(lr)
        loss = sum(criterion(leaf, hr) for leaf in predictions.unbind(1)) + divergence(predictions, hr)
        loss = loss + criterion(network.convergence(predictions.detach())[0], hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(peak() - before)
"""


def measured(kind: str) -> int:
    command = [sys.executable, "-c", MEASURE, kind, json.dumps(NETWORK)]
    # The C library returns freed memory at once: what it keeps otherwise varies by 100 MB from run to run.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc"
)


@pytest.mark.slow
@linux
def test_the_memory_of_a_training_is_near_the_measured_peak() -> None:
    with torch.device("meta"):
        task = build_task(optimization="joint", **{**NETWORK, "branching": [2, 2]})
    estimated = step_memory(task, batch_size=8, patch_size=64)
    assert estimated.weights == sum(parameter.nbytes for parameter in build_network(NETWORK).parameters())
    assert 2 * estimated.weights <= estimated.optimizer < 2.01 * estimated.weights
    assert 0.9 < estimated.peak / measured("train") < 1.2


@pytest.mark.slow
@linux
def test_the_memory_of_an_inference_is_near_the_measured_peak() -> None:
    inference = summarize(on_meta(NETWORK), 1280, 720).inference
    assert inference.least <= inference.peak
    assert 0.9 < inference.peak / measured("infer") < 1.2


def test_activation_checkpointing_and_smaller_batches_need_less() -> None:
    def bytes_of(batch_size: int = 4, **settings: Any) -> int:
        with torch.device("meta"):
            task = build_task(optimization="alternating", scale=2, features=16, fusion_features=16, **settings)
        return step_memory(task, batch_size, 32).step

    most = bytes_of()
    assert bytes_of(activation_checkpointing=True) < 0.7 * most
    assert bytes_of(batch_size=2) == pytest.approx(most / 2, rel=0.1)
