"""d2csr-summary, called as by a user."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

import d2csr
from markdown_pages import ROOT

GOLDEN = ROOT / "tests" / "golden" / "net-x4-f16-b1.pkl"
SMALL = ["scale=2", "model.network.features=16", "model.network.fusion_features=8", "model.network.body.blocks=1"]
SMALL += ["output_size=[64,48]", "data.patch_size=16"]


def test_the_table_of_a_configuration_and_its_json(call, tmp_path: Path) -> None:
    finished = call("summary", *SMALL, "output=summary.json")
    assert finished.returncode == 0, finished.stderr
    network = d2csr.D2CSR(scale=2, features=16, branching=[2, 2], fusion_features=8, body={"name": "rcab", "blocks": 1})
    count = sum(parameter.numel() for parameter in network.parameters())
    summary = json.loads(Path("summary.json").read_text())
    assert summary["total"]["parameters"] == count
    assert summary["settings"] == network.settings
    assert (summary["lr_size"], summary["sr_size"], summary["patch_size"]) == ([32, 24], [64, 48], 16)
    assert f"\ntotal          {count:>14,}" in finished.stdout
    assert "4 LR patches of 16×16, alternating, float32" in finished.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    again = call("summary", *SMALL, "output=summary.json")
    assert again.stderr.startswith("error: output: summary.json exists")


@pytest.mark.parametrize("name", ["official.pkl", "own.ckpt"])
def test_the_network_of_a_checkpoint(call, name: str) -> None:
    shutil.copy(GOLDEN, "official.pkl")
    if name == "own.ckpt":
        assert call("convert", "source=official.pkl", "output=own.ckpt").returncode == 0
    finished = call("summary", f"ckpt={name}", "output_size=[64,48]", "data.patch_size=16")
    assert finished.returncode == 0, finished.stderr
    count = sum(parameter.numel() for parameter in d2csr.load_model(name).parameters())
    assert f"\ntotal          {count:>14,}" in finished.stdout
    assert finished.stdout.startswith("×4, tree [2, 2], features=16")


def test_a_matched_experiment(call) -> None:
    arguments = ["output_size=[64,48]", "data.patch_size=16"]
    single, tree = (call("summary", f"+experiment=realsr_x4_edsr{name}", *arguments) for name in ("", "_d2c"))
    assert "1 path(s), features=64, body edsr blocks=16" in single.stdout
    assert "\ntotal               1,517,595" in single.stdout  # EDSR-baseline, with its two colour shifts
    assert "match=flops by width: model.network.features=32 (was 64)" in tree.stdout
    assert "tree [2, 2], features=32" in tree.stdout


MISTAKES = [
    (["model.network.featurs=3"], "model.network.featurs: no such key."),
    (["modle=single"], "Could not override 'modle'"),
    (["output_sise=[3,3]"], "output_sise: no such key."),
    (["output_size=[0,48]"], "output_size.0: must be a whole number from 1 to 65536, got 0."),
    (["output_size=720"], "output_size: must be width and height, such as [1280,720], got 720."),
    (["output=table.txt"], "output: must be a .json file, got table.txt."),
    (["model.network.body.name=foo"], "model.network.body.name: must be one of"),
    (["model.network.body.reduction=99"], "model.network.body.reduction: must not exceed the number of features"),
    (["data.batch_size=0"], "data.batch_size: must be a whole number from 1 up, got 0."),
    (["ckpt=nowhere"], "nowhere: no such checkpoint."),
    (["ckpt=official.pkl", "model=single"], "ckpt=… and model=… exclude each other"),
    (["ckpt=official.pkl", "model.features=3"], "ckpt=… and model.network.features=… exclude each other"),
    (["+experiment=demo", "~model"], "model: has no _target_. Choose an option, model=…"),
    (["ckpt=hostile.pkl"], "hostile.pkl: "),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_message(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    shutil.copy(GOLDEN, "official.pkl")
    Path("hostile.pkl").write_bytes(pickle.dumps(Hostile()))
    finished = call("summary", *arguments)
    assert finished.returncode == 1
    assert message.removeprefix("Could not override 'modle'") in finished.stderr
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.pkl", "official.pkl"]


class Hostile:
    """An object whose pickle writes a file when it is loaded without care."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)
