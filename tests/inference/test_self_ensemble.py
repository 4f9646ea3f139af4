from __future__ import annotations

import pytest
import torch

from d2csr.inference import Inference
from d2csr.inference.runner import ORIENTATIONS, orient, restore


def test_eight_different_orientations_that_can_be_undone() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    seen = {tuple(orient(image, index).flatten().tolist()) for index in range(ORIENTATIONS)}
    assert len(seen) == 8
    for index in range(ORIENTATIONS):
        assert torch.equal(restore(orient(image, index), index), image)


@pytest.mark.parametrize("size", [(9, 9), (7, 12)])
def test_it_equals_a_loop_by_hand(size, random_model, plain) -> None:
    model = random_model(2)
    lr = torch.rand(2, 3, *size)
    sums = [0, 0, 0]
    for transposed in (False, True):
        for up in (False, True):
            for left in (False, True):
                axes = [axis for axis, flip in ((-2, up), (-1, left)) if flip]
                turned = (lr.transpose(-1, -2) if transposed else lr).flip(axes)
                for i, part in enumerate(plain(model, turned)):
                    back = part.flip(axes)
                    sums[i] = sums[i] + (back.transpose(-1, -2) if transposed else back)
    outputs = Inference(self_ensemble=True).outputs(model, lr)
    for actual, total in zip(outputs, sums, strict=True):
        torch.testing.assert_close(actual, total / 8, atol=1e-5, rtol=0)


def test_the_result_turns_with_the_image(random_model) -> None:
    model, lr = random_model(2), torch.rand(1, 3, 8, 8)
    ensemble = Inference(self_ensemble=True)
    torch.testing.assert_close(ensemble(model, lr.rot90(1, (-2, -1))), ensemble(model, lr).rot90(1, (-2, -1)))
    assert not torch.allclose(ensemble(model, lr), Inference()(model, lr), atol=1e-3)
