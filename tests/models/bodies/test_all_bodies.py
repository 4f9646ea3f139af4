"""Properties of every registered body."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d2csr.errors import ConfigError
from d2csr.models import D2CSR
from d2csr.models.bodies import build_body, complete_settings

SMALL = {
    "edsr": {"blocks": 1},
    "imdn": {"blocks": 2, "reduction": 2},
    "nafnet": {"blocks": 2},
    "rcab": {"groups": 1, "blocks": 1, "reduction": 2},
    "rrdb": {"blocks": 1, "growth": 4},
    "swin": {"groups": 1, "layers": 2, "heads": 2, "window": 4},
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 7), (40, 9)])
def test_any_size_keeps_its_size_and_every_parameter_gets_a_gradient(name, size, randomised):
    body = randomised(build_body(16, complete_settings({"name": name, **SMALL[name]})))
    x = torch.randn(2, 16, *size)
    y = body(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    for parameter_name, parameter in body.named_parameters():
        assert parameter.grad.isfinite().all(), parameter_name
        # A single pixel is its own window, so its attention is 1 for any keys.
        assert parameter.grad.any() or (name == "swin" and size == (1, 1)), parameter_name


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_are_independent(name, randomised):
    body = randomised(build_body(16, complete_settings({"name": name, **SMALL[name]})))
    x = torch.randn(2, 16, 6, 9)
    with torch.no_grad():
        alone = torch.cat([body(x[:1]), body(x[1:])])
        torch.testing.assert_close(body(x), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_input_is_not_changed(name, randomised):
    body = randomised(build_body(16, complete_settings({"name": name, **SMALL[name]})))
    x = torch.randn(1, 16, 6, 9)
    before = x.clone()
    body(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", SMALL)
def test_a_tree_of_it_trains_and_is_rebuilt_from_its_settings(name):
    torch.manual_seed(0)
    model = D2CSR(2, 16, [2, 2], 8, {"name": name, **SMALL[name]})
    lr, hr = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    losses = []
    for _ in range(3):
        loss = (model(lr) - hr).square().mean() + (model.divergence(lr) - hr[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]

    again = D2CSR(**model.settings)
    assert again.settings == model.settings
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(lr), model(lr))


@pytest.mark.parametrize("name", SMALL)
def test_the_default_body_has_about_as_many_parameters_as_the_papers(name, parameters):
    body = build_body(64, complete_settings({"name": name}))
    assert parameters(body) == pytest.approx(706_272, rel=0.1)  # 2 groups of 4 blocks


@pytest.mark.parametrize("name", SMALL)
def test_a_setting_that_is_no_number_is_refused(name):
    settings = complete_settings({"name": name})
    for key in settings.keys() - {"name"}:
        for value in ("3", True, 0):
            with pytest.raises(ConfigError, match=rf"^body\.{key}: must be"):
                build_body(64, {**settings, key: value})


@pytest.mark.parametrize("name", SMALL)
def test_a_mistyped_huge_number_is_refused_instead_of_built_without_end(name):
    settings = complete_settings({"name": name})
    for key in settings.keys() - {"name", "residual_scale"}:
        with pytest.raises(ConfigError, match=rf"^body\.{key}: must "):
            build_body(64, {**settings, key: 10**10})


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_compiles_to_one_graph(name, randomised):
    body = randomised(build_body(16, complete_settings({"name": name, **SMALL[name]})))
    x = torch.randn(1, 16, 6, 9)
    compiled = torch.compile(body, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), body(x))


@pytest.mark.parametrize("name", SMALL)
def test_the_documentation_has_its_defaults_and_the_parameters_of_a_tree(name, parameters):
    with torch.device("meta"):
        model = D2CSR(4, 64, [2, 2], 64, name)
    table = (Path(__file__).parents[3] / "docs" / "bodies.md").read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
    for key, value in model.settings["body"].items():
        assert key == "name" or f"`{key}={value}`" in row
    assert f"| {parameters(model):,} |" in row
    side = getattr(model.divergence.bodies["11"], "receptive_field", None)
    assert side is None or f"| {side} × {side} |" in row
