from __future__ import annotations

import pytest
import torch

from d2csr import load_model
from d2csr.errors import ConfigError
from d2csr.models import D2CSR, ConvergenceNetwork

TINY = {
    "scale": 2,
    "features": 16,
    "branching": [2, 2],
    "fusion_features": 8,
    "body": {"name": "rcab", "groups": 1, "blocks": 1},
}
BRANCHINGS = [[2, 2], [4], [3, 3], [2, 2, 2], [1], [1, 3]]
GOLDENS = ["net-x2-f16-b1", "net-x3-f16-b1", "net-x4-f16-b1", "net-x8-f16-b1"]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_fused_image_is_the_official_one(scale, golden, golden_arrays, off_by):
    arrays = golden_arrays(f"net-x{scale}-f16-b1.npz")
    with torch.no_grad():
        sr = load_model(golden / f"net-x{scale}-f16-b1.pkl")(arrays["lr"])
    assert off_by(sr, arrays["sr"]) < 1e-4


def test_the_papers_settings_give_the_official_number_of_parameters():
    model = D2CSR(scale=4, features=64, branching=[2, 2], fusion_features=64)
    assert count(model.divergence) == 5_723_492
    assert count(model.convergence) == 46_080
    assert count(model) == 5_769_572


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize(("branching", "leaves"), [([2, 2], 4), ([4], 4), ([3, 3], 9), ([2, 2, 2], 8), ([1], 1)])
def test_shapes(scale, branching, leaves):
    model = D2CSR(**TINY | {"scale": scale, "branching": branching})
    with torch.no_grad():
        predictions = model.divergence(torch.rand(2, 3, 4, 3))
        sr, weights = model.convergence(predictions)
    assert predictions.shape == (2, leaves, 3, 4 * scale, 3 * scale)
    assert weights.shape == (2, leaves, 4 * scale, 3 * scale)
    assert sr.shape == (2, 3, 4 * scale, 3 * scale)
    assert model.tree.num_leaves == leaves


def test_the_model_is_divergence_then_convergence():
    model = D2CSR(**TINY)
    lr = torch.rand(1, 3, 5, 7)
    assert torch.equal(model(lr), model.convergence(model.divergence(lr))[0])


def test_its_settings_build_the_same_architecture():
    model = D2CSR(**TINY | {"scale": 3, "branching": (3, 2), "body": {"name": "rcab", "reduction": 8}})
    again = D2CSR(**model.settings)
    assert again.settings == model.settings
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in again.state_dict().items()}


def test_its_settings_are_plain_values():
    settings = D2CSR(**TINY | {"branching": (2, 2)}).settings
    assert settings["branching"] == [2, 2]
    assert settings["body"] == {"name": "rcab", "groups": 1, "blocks": 1, "reduction": 16}
    assert {type(value) for value in settings.values()} == {int, list, dict}


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = D2CSR(**TINY | {"branching": [2, 1]})
    model(torch.rand(1, 3, 6, 6)).sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 5}, "scale: must be one of 2, 3, 4, 8, got 5"),
        ({"scale": "4"}, "scale: must be one of 2, 3, 4, 8, got '4'"),
        ({"scale": 4.0}, "scale: must be one of 2, 3, 4, 8, got 4.0"),
        ({"branching": []}, "branching: must be a list of one whole number for each level, got []"),
        ({"branching": [0]}, "branching: must be a whole number from 1 to 9, got 0"),
        ({"branching": ["2"]}, "branching: must be a whole number from 1 to 9, got '2'"),
        ({"branching": [True]}, "branching: must be a whole number from 1 to 9, got True"),
        ({"branching": 2}, "branching: must be a list of one whole number for each level, got 2"),
        ({"features": 8}, "body.reduction: must not exceed the number of features, 8, got 16"),
        ({"features": 0}, "features: must be a whole number from 1 to 4096, got 0"),
        ({"features": "64"}, "features: must be a whole number from 1 to 4096, got '64'"),
        ({"features": 64.5}, "features: must be a whole number from 1 to 4096, got 64.5"),
        ({"fusion_features": None}, "fusion_features: must be a whole number from 1 to 4096, got None"),
        ({"body": {"name": "rcab", "groups": 0}}, "body.groups: must be a whole number from 1 to 1024, got 0"),
        ({"body": {"name": "rcab", "blocks": 1.5}}, "body.blocks: must be a whole number from 1 to 1024, got 1.5"),
        ({"body": {"name": "rcab", "reduction": 0}}, "body.reduction: must be a whole number from 1 up, got 0"),
        ({"body": {"name": "rcab", "depth": 3}}, "body.depth: the body 'rcab' has no such setting"),
        ({"body": {"name": "rcab", "groups": {}}}, "body.groups: must be a number, a string"),
        ({"body": "mine"}, "body.name: must be one of edsr, imdn, nafnet, rcab, rrdb, swin"),
        ({"body": 3}, "body: must hold a name and the settings of a body, got 3"),
    ],
)
def test_an_impossible_setting_is_named(settings, message):
    with pytest.raises(ConfigError) as error:
        D2CSR(**TINY | settings)
    assert message in str(error.value)


def tiny(branching, scale=2):
    torch.manual_seed(0)
    return D2CSR(scale, 16, branching, 8, {"name": "rcab", "groups": 1, "blocks": 1})


def changed(before, after):
    """Which predictions have changed, by their position."""
    return [k for k in range(before.shape[1]) if not torch.equal(before[:, k], after[:, k])]


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("leaf", range(4))
def test_each_prediction_is_the_official_one(name, leaf, golden, golden_arrays, stacked, off_by):
    arrays = golden_arrays(f"{name}.npz")
    with torch.no_grad():
        predictions = load_model(golden / f"{name}.pkl").divergence(arrays["lr"])
    assert off_by(predictions[:, leaf], stacked(arrays, "pred")[:, leaf]) < 1e-4


@pytest.mark.parametrize("branching", BRANCHINGS)
def test_a_leaf_adds_its_ancestors_from_the_parent_up_to_the_head(branching):
    network = tiny(branching).divergence
    lr = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        predictions = network(lr)
        head = network.head(network.input_shift(lr))
        for k, leaf in enumerate(network.tree.leaves):
            path = [head]
            for depth in range(1, len(leaf) + 1):
                path.append(network.bodies[leaf[:depth]](path[-1]))
            features = path.pop()
            for skip in network.skips[leaf]:
                features = skip(features) + path.pop()
            assert path == []
            expected = network.output_shift(network.tails[leaf](features))
            torch.testing.assert_close(predictions[:, k], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("branching", BRANCHINGS)
def test_a_body_affects_only_the_leaves_below_it(branching):
    network = tiny(branching).divergence
    lr = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        before = network(lr)
        for node in network.tree.nodes:
            weight = network.bodies[node][-1].weight
            kept = weight.clone()
            weight.add_(0.1)
            below = [k for k, leaf in enumerate(network.tree.leaves) if leaf.startswith(node)]
            assert changed(before, network(lr)) == below, node
            weight.copy_(kept)


@pytest.mark.parametrize("part", ["tails", "skips"])
def test_tails_and_skips_belong_to_one_leaf(part):
    network = tiny([2, 2]).divergence
    lr = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        before = network(lr)
        for parameter in getattr(network, part)["12"].parameters():
            parameter.zero_()
        assert changed(before, network(lr)) == [1]


def test_a_zero_tail_gives_the_output_shift():
    network = tiny([2, 2]).divergence
    with torch.no_grad():
        for parameter in network.tails["12"].parameters():
            parameter.zero_()
        colour = network(torch.rand(1, 3, 4, 4))[0, 1, :, 0, 0]
    torch.testing.assert_close(colour, torch.tensor([0.4488, 0.4371, 0.4040]))


def test_predictions_are_in_the_order_of_the_leaves():
    network = tiny([2, 2, 2]).divergence
    assert [leaf for leaf, _ in network.trunk(torch.rand(1, 3, 4, 4))] == network.tree.leaves


def test_images_of_a_batch_are_independent():
    network = tiny([2, 2]).divergence
    lr = torch.rand(2, 3, 5, 4)
    with torch.no_grad():
        alone = torch.cat([network(lr[:1]), network(lr[1:])])
        torch.testing.assert_close(network(lr), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("branching", [[2, 2], [3]])
def test_activation_checkpointing_changes_no_gradient_and_keeps_fewer_maps(branching):
    network = tiny(branching).divergence
    lr = torch.rand(1, 3, 8, 8)
    gradients, kept = [], []
    for network.activation_checkpointing in (False, True):
        network.zero_grad()
        saved: dict[int, int] = {}

        def note(tensor, saved=saved):
            saved.setdefault(tensor.data_ptr(), tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(lr).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
        kept.append(sum(saved.values()))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    network = tiny([2, 2]).divergence
    lr = torch.rand(1, 3, 6, 6)
    compiled = torch.compile(network, fullgraph=True, backend="eager")  # raises where the graph would break
    torch.testing.assert_close(compiled(lr), network(lr))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_weights_and_image_of_the_official_predictions_are_the_official_ones(
    scale, golden, golden_arrays, stacked, off_by
):
    arrays = golden_arrays(f"net-x{scale}-f16-b1.npz")
    with torch.no_grad():
        sr, weights = load_model(golden / f"net-x{scale}-f16-b1.pkl").convergence(stacked(arrays, "pred"))
    assert off_by(weights, arrays["weights"]) < 1e-4
    assert off_by(sr, arrays["sr"]) < 1e-4


@pytest.mark.parametrize("leaves", [1, 4, 9])
def test_weights_are_positive_and_sum_to_one_at_each_pixel(leaves):
    sr, weights = ConvergenceNetwork(leaves, features=8)(torch.rand(2, leaves, 3, 6, 5))
    assert sr.shape == (2, 3, 6, 5)
    assert weights.shape == (2, leaves, 6, 5)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 6, 5))


def test_a_single_prediction_is_the_result():
    prediction = torch.rand(1, 1, 3, 6, 5)
    sr, _ = ConvergenceNetwork(1, features=8)(prediction)
    torch.testing.assert_close(sr, prediction[:, 0])


def test_the_last_layer_is_followed_by_a_relu():
    network = ConvergenceNetwork(3, features=4)
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.fill_(1.0)
        network.layers[-1].weight[1] = -1.0
        network.layers[-1].weight[2] = 0.0
        _, weights = network(torch.full((1, 3, 3, 3, 3), 1e-5))
    positive, negative, zero = weights.unbind(dim=1)
    torch.testing.assert_close(negative, zero)
    assert (positive > zero).all()


def test_convolutions_have_no_bias():
    assert [name for name, _ in ConvergenceNetwork(4, features=64).named_parameters()] == [
        "layers.0.weight",
        "layers.1.weight",
        "layers.2.weight",
    ]
