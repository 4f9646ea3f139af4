"""Keys in the commands of the pages, and marks of the blocks that ``test_pages.py`` does not run.

Such a block has a comment before it, which neither GitHub nor the site shows:
``<!-- not run: REASON -->``, or ``<!-- run by tests/FILE.py -->`` where another test runs it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from d2csr.commands.arguments import hydra_arguments
from d2csr.commands.base import config_dir
from d2csr.renamed import RENAMED
from markdown_pages import DOCS, PAGES, ROOT, blocks, is_mark


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_block_that_is_not_run_here_says_why(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.mark and block.language in ("bash", "python"):
            assert is_mark(block.mark), block.mark
            if block.mark.startswith("run by "):
                assert (ROOT / block.mark.removeprefix("run by ")).is_file(), block.mark
        assert block.language not in ("sh", "shell", "console", "shell-session"), "commands are in blocks of bash"


CONFIGS = {f"d2csr-{path.stem}": path.stem for path in (ROOT / "conf").glob("*.yaml")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_keys_in_the_commands_of_a_page_exist(page: Path) -> None:
    shell = [block for block in blocks(page.read_text()) if block.language == "bash" and "<<" not in block.text]
    for words in [words for block in shell for words in block.commands()]:
        command = next((word for word in words if word in CONFIGS), None)
        if command is None or any(word.startswith("-") or "…" in word or "submitit" in word for word in words):
            continue  # another program, or files of the user, an abbreviation, a launcher that is an extra
        arguments = hydra_arguments(
            words[words.index(command) + 1 :],
            lists=("save", "protocols", "iqa", "run"),
            paths=("data.root", "root", "input", "run", "output"),
            renamed=RENAMED if command == "d2csr-train" else None,
            open_nodes=("model.network.body", "match_to.body"),
        )
        with initialize_config_dir(config_dir(), version_base="1.3"):
            compose(CONFIGS[command], overrides=arguments)


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
