"""Parsed YAML is kept, and each reader gets its own copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf


def test_a_change_of_what_was_read_and_of_the_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("a: {b: 1e-3}\n")
    OmegaConf.load(path).a.b = 7
    assert OmegaConf.load(path) == {"a": {"b": 1e-3}}
    path.write_text("a: {b: 2}\n")
    assert OmegaConf.load(path) == {"a": {"b": 2}}


def test_each_text_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    monkeypatch.setattr(yaml.SafeLoader, "get_single_data", lambda loader: parsed.append(loader.name) or {"a": 1})
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("only: here\n")
        assert OmegaConf.load(tmp_path / name) == {"a": 1}
    assert parsed == [str(tmp_path / "one.yaml")]


def test_an_error_names_the_file_each_time(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1\n")
    for _ in range(2):
        with pytest.raises(yaml.YAMLError, match=r"bad\.yaml"):
            OmegaConf.load(path)
