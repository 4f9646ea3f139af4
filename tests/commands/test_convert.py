"""``d2csr-convert`` keeps every figure, and runs nothing that a pickle asks for."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import d2csr

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_converted_checkpoint_is_the_same_network(call, scale: int, tmp_path: Path) -> None:
    source = GOLDEN / f"net-x{scale}-f16-b1.pkl"
    finished = call("convert", f"source={source}", "output=out/converted.ckpt")
    assert finished.returncode == 0, finished.stderr
    assert f"scale {scale}, features 16" in finished.stdout
    torch.load(tmp_path / "out" / "converted.ckpt", weights_only=True)
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(d2csr.load_model(tmp_path / "out" / "converted.ckpt")(lr), d2csr.load_model(source)(lr))


def test_a_pickle_that_wants_to_run_code_is_refused(call, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps({"state_dict_D": Hostile(), "state_dict_C": {}}))
    finished = call("convert", "source=hostile.pkl", "output=converted.ckpt")
    assert finished.returncode == 1
    assert "refused" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "it ran").exists()
    assert not (tmp_path / "converted.ckpt").exists()


def test_missing_arguments_are_named(call) -> None:
    finished = call("convert")
    assert finished.returncode == 1
    assert "output=… source=… is missing" in finished.stderr


def test_nothing_is_left_in_the_folder_but_the_output(call, tmp_path: Path) -> None:
    call("convert", f"source={GOLDEN / 'net-x2-f16-b1.pkl'}", "output=converted.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["converted.ckpt"]
