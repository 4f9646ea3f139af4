"""A data set of the user's own: a module with its layout, and a YAML file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from d2csr.data.discovery import discover
from d2csr.data.layouts import Layout, register_layout
from d2csr.data.lists import read_list
from d2csr.errors import ConfigError, DataError

MODULE = """
from d2csr.data.layouts import Layout, register_layout

register_layout("mine", Layout(
    folders=(("{split}", "sharp/x{scale}", "small/x{scale}"),),
    names=r"(scene\\d+)_(?:tele|wide)",
    example="scene1_tele.png with scene1_wide.png",
    scales=(2, 4),
))
"""
YAML = "defaults: [pairs]\nname: mine\n"


def write_images(root: Path, lr: tuple[int, int] = (8, 8)) -> None:
    for split, count in (("train", 4), ("test", 1)):
        for number in range(count):
            for kind, name, scale in (("sharp", "tele", 2), ("small", "wide", 1)):
                path = root / split / kind / "x2" / f"scene{number}_{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (lr[0] * scale, lr[1] * scale), (number, 0, 0)).save(path)


def test_registered_layout_is_found(tmp_path):
    register_layout("other", Layout(folders=(("{split}", "sharp/x{scale}", "small/x{scale}"),), names=r"(scene\d+)_.*"))
    write_images(tmp_path)
    found = discover("other", tmp_path, 2)
    assert [pair.hr.name for pair in found["train"]] == [f"scene{number}_tele.png" for number in range(4)]
    assert [pair.lr.name for pair in found["test"]] == ["scene0_wide.png"]


def test_a_name_can_be_registered_once(tmp_path):
    layout = Layout(folders=(("{split}", "a", "b"),))
    register_layout("other", layout)
    register_layout("other", layout)  # as after a reload
    with pytest.raises(ConfigError, match="name: there is a data set 'other' already"):
        register_layout("other", Layout(folders=(("{split}", "c", "d"),)))
    with pytest.raises(ConfigError, match="name: there is a data set 'realsr' already"):
        register_layout("realsr", layout)


@pytest.mark.parametrize(("name", "names"), [("a/b", "(.+)"), ("", "(.+)"), ("fine", "(")])
def test_impossible_registrations(name, names):
    with pytest.raises(ConfigError):
        register_layout(name, Layout(folders=(("{split}", "a", "b"),), names=names))


def test_scales_of_a_data_set(tmp_path):
    with pytest.raises(ConfigError, match="scale of realsr: must be one of 2, 3, 4, got 8"):
        discover("realsr", tmp_path, 8)


def test_equal_sizes_are_refused_with_the_layouts_reason(tmp_path):
    register_layout("other", Layout(folders=((".", "HR", "LR"),), equal_sizes="this is the old version"))
    for kind in ("HR", "LR"):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / kind / "a.png")
    with pytest.raises(DataError, match=r"this is the old version \(a.png is as large as a.png\)"):
        discover("other", tmp_path, 2)


@pytest.fixture
def run(python, tmp_path):
    """Run ``d2csr-NAME`` in an otherwise empty folder."""

    def run_command(name, *arguments):
        command = [python, "-m", f"d2csr.commands.{name}", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    return run_command


@pytest.mark.slow
def test_a_registered_data_set_through_the_commands(run, tmp_path):
    (tmp_path / "my_layout.py").write_text(MODULE)
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "mine.yaml").write_text(YAML)
    write_images(tmp_path / "photos")
    lists = run("make_lists", "dataset=mine", "root=photos", "scale=2", "plugins=[my_layout]")
    assert lists.returncode == 0, lists.stderr
    assert "mine_x2_train.txt: 4 train pairs" in lists.stdout
    assert [pair.lr.name for pair in read_list(tmp_path / "lists" / "mine_x2_test.txt")] == ["scene0_wide.png"]
    trained = run(
        *("train", "--config-dir", "my_conf", "data=mine", "scale=2", "data.batch_size=2"),
        *("trainer=cpu", "trainer.max_epochs=1", "data.patch_size=8", "data.num_workers=0", "hydra.run.dir=out"),
        "trainer.limit_train_batches=1",
    )
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").is_file()
