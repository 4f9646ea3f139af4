"""Documents that a user follows: each key of a table exists, and each command of docs/extending.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from d2csr.commands.app import config_dir

DOCS = Path(config_dir()).parent / "docs"

# Flags of the official train.py, without those that it parses and does not use.
FLAGS = {
    *("--train_list_path", "--val_list_path", "--scale", "--patch_size", "--batch-size", "--ngpus", "--workers"),
    *("--epochs", "--val-freq", "--print-freq", "--lr", "--weight-decay", "--decay_epoch", "--gamma", "--diver_w"),
    *("--diver_start_epoch", "--diver_every", "--diver_epochs", "--diver_decay_epoch", "--diver_decay_rate"),
    *("--margin_same", "--margin_diff", "--save", "--load_checkpoint", "--debug"),
}


def flag_rows() -> list[tuple[str, list[str], str]]:
    """Return flag, keys and value of each row of the table of flags."""
    _, table = (DOCS / "migration.md").read_text().split("| official flag |")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    return [
        (flag.strip("`").split()[0], re.findall(r"`([a-z_.]+)(?:=\w+)?`", keys), value) for flag, keys, value in cells
    ]


def test_the_table_of_flags_is_complete() -> None:
    assert {flag for flag, _, _ in flag_rows()} == FLAGS
    assert all(keys for _, keys, _ in flag_rows())


@pytest.fixture(scope="module")
def composed() -> Any:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", overrides=["+experiment=realsr_x4"], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = "run"
    return cfg


@pytest.mark.parametrize(("flag", "keys", "value"), flag_rows())
def test_a_key_in_the_table_of_flags_exists_and_has_the_value(flag: str, keys: list[str], value: str, composed) -> None:
    for key in keys:
        assert OmegaConf.select(composed, key, default="missing") != "missing", key
    ours = re.search(r"here (\d+)", value)
    number = ours.group(1) if ours else value
    if re.fullmatch(r"[\d.e-]+", number):
        assert OmegaConf.select(composed, keys[0]) == pytest.approx(float(number)), flag
