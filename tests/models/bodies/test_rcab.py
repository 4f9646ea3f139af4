from __future__ import annotations

import pytest
import torch

from d2csr.models.bodies.rcab import RCABBody
from d2csr.models.layers import Tail


def test_rcan_has_the_published_number_of_parameters(single_path, parameters):
    """15,592,355: RCAN at ×4 (https://github.com/yulunzhang/RCAN); its two mean shifts have 24 more."""
    network = single_path(64, RCABBody(64, groups=10, blocks=20), Tail(64, scale=4))
    assert parameters(network) == 15_592_355


def test_the_output_equals_that_of_another_implementation(single_path, randomised, copy_in_order):
    architectures = pytest.importorskip("spandrel.architectures.RCAN")
    theirs = architectures.RCAN(scale=2, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4, norm=False)
    ours = single_path(16, RCABBody(16, groups=2, blocks=2, reduction=4), Tail(16, scale=2))
    copy_in_order(randomised(theirs), ours)
    x = torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x.clone()), rtol=1e-5, atol=1e-5)


def test_it_uses_the_mean_of_the_whole_image(randomised):
    body = randomised(RCABBody(16, groups=1, blocks=1, reduction=2))
    x = torch.randn(1, 16, 40, 40)
    changed = x.clone()
    changed[:, :, 0, 0] *= -100
    with torch.no_grad():
        assert not torch.equal(body(x)[..., -1, -1], body(changed)[..., -1, -1])
