from __future__ import annotations

import pytest
import torch

from d2csr import load_model
from d2csr.models import D2CSR

BRANCHINGS = [[2, 2], [4], [3, 3], [2, 2, 2], [1], [1, 3]]
GOLDENS = ["net-x2-f16-b1", "net-x3-f16-b1", "net-x4-f16-b1", "net-x8-f16-b1"]


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
