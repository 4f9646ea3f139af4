"""Links and keys in the documents, and the commands of docs/extending.md."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from d2csr.commands.app import config_dir
from d2csr.commands.arguments import hydra_arguments
from d2csr.renamed import RENAMED

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in headings(target), link


def headings(page: Path) -> list[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def commands(text: str) -> list[list[str]]:
    """Return the lines of all code blocks of a shell, as words, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


NAMES = ("train", "eval", "upscale", "lists", "convert", "export", "plot", "figure", "app")
CONFIGS = {f"d2csr-{name}": name for name in NAMES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_keys_in_the_commands_of_a_page_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        name = next((word for word in words if word in CONFIGS), None)
        if name is None or any(word.startswith("-") or "…" in word or "submitit" in word for word in words):
            continue  # another program, or files of the user, an abbreviation, a launcher that is an extra
        arguments = hydra_arguments(
            words[words.index(name) + 1 :],
            lists=("save", "protocols", "iqa", "run"),
            paths=("data.root", "root", "input", "run", "output"),
            renamed=RENAMED if name == "d2csr-train" else None,
            open_nodes=("model.network.body",),
        )
        with initialize_config_dir(config_dir(), version_base="1.3"):
            compose(CONFIGS[name], overrides=arguments)


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


SMALL = (
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "trainer.enable_progress_bar=false"),
    *("trainer.log_every_n_steps=1", "data.batch_size=2"),
)
# Settings for every command but those that remove what they belong to.
UNLESS = {
    "~callbacks.panels": ("callbacks.panels.images=0",),
    "model._target_": ("model.network.features=16", "model.network.fusion_features=8"),
    "data._target_": ("data.patch_size=8", "data.patches_per_image=1"),
}


def sections() -> dict[str, str]:
    """Return the text of each section of docs/extending.md by its title."""
    parts = re.split(r"^## (.+)$", (DOCS / "extending.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def in_small(command: list[str]) -> list[str]:
    """Add settings of a short training to a command, but for those that it sets itself."""
    if command[0] != "d2csr-train":
        return [*command, "trainer=cpu"] if command[0] in ("d2csr-eval", "d2csr-upscale") else command
    given = {argument.partition("=")[0].lstrip("+") for argument in command}
    rest = [setting for key, settings in UNLESS.items() if key not in given for setting in settings]
    keys = given - {"trainer.max_epochs"}
    return [*command, *(setting for setting in [*SMALL, *rest] if setting.partition("=")[0] not in keys)]


@pytest.fixture
def files_of_a_user(tmp_path: Path) -> None:
    """Two pairs for training and one for the test, and a folder of photographs."""
    for split, count in (("train", 2), ("test", 1)):
        for kind, size in (("HR", 48), ("LR", 24)):
            folder = tmp_path / "my_pairs" / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.effect_noise((size, size), 60).convert("RGB").save(folder / f"{number}.png")
    (tmp_path / "photographs").mkdir()
    for number in range(4):
        Image.effect_noise((80, 70), 60).convert("RGB").save(tmp_path / "photographs" / f"{number}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("title", sections())
def test_the_commands_of_the_page_on_extending_run(title: str, call, tmp_path: Path, files_of_a_user) -> None:
    section = sections()[title]
    for name, content in re.findall(r"`(my_[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert commands(section)
    for command in map(in_small, commands(section)):
        if command[0] == "python":
            subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
            continue
        finished = call(command[0].removeprefix("d2csr-"), *command[1:])
        assert finished.returncode == 0, f"{shlex.join(command)}\n{finished.stdout}{finished.stderr}"
    if "train/use_" in section:  # the callback has logged its column
        assert any("train/use_11" in log.read_text() for log in tmp_path.rglob("metrics*.csv"))
