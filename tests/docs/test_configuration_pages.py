"""Generated reference of the configuration, compared with what Hydra composes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from d2csr.commands.base import config_dir
from markdown_pages import DOCS, ROOT

sys.path.insert(0, str(DOCS / "_ext"))
from configuration_pages import ConfigFile, files, markdown, read_file, split_comment

COMMANDS = [path.stem for path in sorted((ROOT / "conf").glob("*.yaml"))]
EXPERIMENTS = [path.stem for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))]


@pytest.fixture(scope="module")
def read() -> list[ConfigFile]:
    return files()


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of each leaf of nested dicts."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def composed(command: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(command, overrides=list(overrides))
    return dict(leaves(OmegaConf.to_container(cfg)))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_key_of_a_composed_configuration_is_in_the_reference(command: str, read: list[ConfigFile]) -> None:
    keys = {key.name for file in read for key in file.keys}
    for overrides in [[], *([f"+experiment={name}"] for name in EXPERIMENTS if command == "train")]:
        assert set(composed(command, *overrides)) <= keys


@pytest.mark.parametrize("command", COMMANDS)
def test_the_values_of_a_command_are_those_that_hydra_composes(command: str, read: list[ConfigFile]) -> None:
    own = next(file for file in read if str(file.path) == f"{command}.yaml")
    keys = {key.name: key.value for key in own.keys if key.value and not key.name.startswith("hydra.")}
    values = composed(command)
    assert len(keys) >= 3
    for name, text in keys.items():
        assert yaml.safe_load(text) == values[name] or text == str(values[name]), name


def test_each_file_and_each_comment_is_on_the_page(read: list[ConfigFile]) -> None:
    page = markdown().replace("\\", "").replace("`--", "--")
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"{path.stem}`" in page
        template = False
        for line in path.read_text().splitlines():
            template = template or line.strip() == "template: |"
            _, comment = split_comment(line)
            if comment and not template and not comment.startswith((" @package", " d2csr-train +experiment=")):
                words = re.split(r"docs/|https://|--", comment.strip())[0]
                assert words in page, (path.name, comment)


def test_each_key_that_a_user_sets_has_a_comment(read: list[ConfigFile]) -> None:
    explained = {key.name for file in read for key in file.keys if key.comment}
    bare = {
        key.name
        for file in read
        for key in file.keys
        if not key.comment and not key.value.startswith("${") and not key.name.startswith("hydra.")
    }
    # The settings of a body are those of its class; docs/bodies.md lists them.
    excused = ("_target_", "_partial_")
    bodies = ("model.network.body.", "match_to.body.")
    bare = {name for name in bare - explained if not name.startswith(bodies)}
    assert [name for name in sorted(bare) if not name.endswith(excused)] == []


def test_comments_values_and_packages_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    path = tmp_path / "group" / "option.yaml"
    path.write_text(
        "# What it is,\n# in two lines.\n"
        "defaults:\n  - other # why\n  - _self_\n\n"
        'text: "a # b" # not in the value\n'
        "list: [1, 2] # first\n#   and on\nnode: # of a node\n  inner: it's # no quote\n\n"
        "# alone\nblock: |\n  # text\nlast: {}\n"
    )
    file = read_file(path, tmp_path)
    assert file.comments == ["What it is, in two lines.", "why", "alone"]
    assert file.defaults == ["other"]
    assert [(key.name, key.value, key.comment) for key in file.keys if key.name != "group.block"] == [
        ("group.text", '"a # b"', "not in the value"),
        ("group.list", "[1, 2]", "first and on"),
        ("group.node", "", "of a node"),
        ("group.node.inner", "it's", "no quote"),
        ("group.last", "{}", ""),
    ]
    path.write_text("# @package _global_\nscale: 4\n")
    assert [key.name for key in read_file(path, tmp_path).keys] == ["scale"]
