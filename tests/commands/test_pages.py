"""Execution of the blocks of commands and of Python on all pages, with small networks and data."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from markdown_pages import PAGES, ROOT, Block, blocks

GOLDEN = ROOT / "tests" / "golden"

SMALL = (
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "trainer.enable_progress_bar=false"),
    *("trainer.log_every_n_steps=1", "data.batch_size=2"),
)
# Settings for every training but those that set one of the keys before.
UNLESS = {
    ("~callbacks.panels",): ("callbacks.panels.images=0",),
    ("callbacks", "~callbacks.curves"): ("~callbacks.curves",),
    ("model._target_",): ("model.network.features=16",),
    ("model._target_", "model"): ("model.network.fusion_features=8",),
    ("data._target_",): ("data.patch_size=8", "data.patches_per_image=1", "data.num_workers=0"),
}
ON_CPU = {"d2csr-eval": ["trainer=cpu", "data.num_workers=0"], "d2csr-upscale": ["trainer=cpu"]}


def in_small(command: list[str]) -> list[str]:
    """Add settings of a short training to a command, but for those that it sets itself."""
    if command[0] != "d2csr-train" or {"--help", "--cfg"} & set(command):
        return [*command, *ON_CPU.get(command[0], [])]
    given = {argument.partition("=")[0].lstrip("+") for argument in command}
    if any(re.fullmatch(r"\+experiment=\w+_x\d_\w+", word) for word in command):
        given.add("model")  # these experiments choose a network without a tree
    rest = [setting for keys, settings in UNLESS.items() if not given & set(keys) for setting in settings]
    if "+experiment=realsr_x4" in command and "model.network.body.name" not in given:
        rest += ["model.network.body.groups=1", "model.network.body.blocks=1"]
    own = given - {"trainer.max_epochs"}
    return [*command, *(setting for setting in [*SMALL, *rest] if setting.partition("=")[0] not in own)]


def noise(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((width, height), 60).convert("RGB").save(path)


@pytest.fixture
def files_of_a_user(tmp_path: Path) -> None:
    """Small data sets, photographs, results of other programs, and an official checkpoint."""
    realsr, mine = tmp_path / "RealSR(V3)", tmp_path / "mine"
    for split, count in (("train", 2), ("test", 1)):
        for number in range(1, count + 1):
            for kind, size in (("HR", 48), ("LR", 24)):
                noise(tmp_path / "my_pairs" / split / kind / f"{number}.png", size, size)
            noise(mine / split / "sharp" / "x2" / f"scene{number}_tele.png", 48, 48)
            noise(mine / split / "small" / "x2" / f"scene{number}_wide.png", 24, 24)
            for camera in ("Canon", "Nikon"):
                scene = realsr / camera / split.title() / "4" / f"{camera}_{number:03}_HR.png"
                noise(scene, 80, 72)
                noise(scene.with_name(scene.name.replace("HR", "LR4")), 20, 18)
                if split == "test":
                    for method in ("SwinIR", "HAT"):
                        noise(tmp_path / "results" / method / f"{camera}_{number:03}.png", 80, 72)
    for number in range(4):
        noise(tmp_path / "photographs" / f"{number}.png", 80, 70)
    noise(tmp_path / "photo.jpg", 24, 16)
    noise(tmp_path / "photos" / "deeper" / "scan.tif", 16, 16)
    shutil.copy(GOLDEN / "eval-x4" / "official.pkl", tmp_path)
    pairs = [realsr / camera / "Test" / "4" / f"{camera}_001" for camera in ("Canon", "Nikon")]
    sr = [tmp_path / "results" / "HAT" / f"{pair.name}.png" for pair in pairs]
    lines = [f"{pair}_LR4.png\t{pair}_HR.png\t{path}\n" for pair, path in zip(pairs, sr, strict=True)]
    (tmp_path / "net_a.txt").write_text("".join(lines))


REALSR = ["d2csr-train", "+experiment=realsr_x4", "data.root=/data/RealSR(V3)"]
# Run folders that pages start from, and the commands that make them.
FOLDERS = {
    "runs/demo": ["d2csr-train", "+experiment=demo", "hydra.run.dir=runs/demo"],
    "runs/realsr_x4": [*REALSR, "hydra.run.dir=runs/realsr_x4"],
}
# Names on the pages that stand for a run, or for several.
COPIES = ("outputs/train/RUN", "outputs/train/A", "outputs/train/B", "runs/seed0", "runs/seed1", "runs/seed2")


class Reader:
    """Follows a page: runs its blocks in order, in one folder."""

    def __init__(self, call: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.call, self.folder, self.monkeypatch = call, folder, monkeypatch

    def prepare(self, text: str) -> None:
        """Make the lists and run folders that a text uses but does not make."""
        made = set(re.findall(r"hydra\.run\.dir=(\S+)", text))
        if "lists/realsr_x4" in text or "+experiment=realsr_x4" in text:
            self.command(["d2csr-lists", "dataset=realsr", "root=/data/RealSR(V3)", "scale=4"])
        for folder, command in FOLDERS.items():
            if folder in text and folder not in made:
                self.command(command)
        if copies := [name for name in COPIES if name in text]:
            self.command([*REALSR, "hydra.run.dir=of_copies"])
        for name in copies:
            shutil.copytree(self.folder / "of_copies", self.folder / name)
        if "exports/c.ckpt" in text:
            self.command(["d2csr-convert", "source=of_copies", "output=exports/c.ckpt"])

    def run(self, block: Block) -> str:
        """Run a block, and return what it printed."""
        if block.language == "python":
            exec(compile(block.text, "<page>", "exec"), self.names())
            return ""
        if "<<" in block.text:
            done = subprocess.run(["bash", "-c", block.text], env=self.environment(), **self.captured())
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout
        return "".join(map(self.command, block.commands()))

    def command(self, words: list[str]) -> str:
        """Run a command, in this process if it is one of the package."""
        while "=" in words[0]:
            self.monkeypatch.setenv(*words[0].split("=", 1))
            words = words[1:]
        words = [word.replace("/data/RealSR(V3)", str(self.folder / "RealSR(V3)")) for word in words]
        words = [word.replace("/data/mine", str(self.folder / "mine")).removeprefix(".venv/bin/") for word in words]
        assert words[0] != "pip", "the tests install no packages: mark the block with <!-- not run: REASON -->"
        if not words[0].startswith("d2csr-"):
            done = subprocess.run(words, env=self.environment(), **self.captured())
            assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
            return done.stdout
        words = in_small(words)
        finished = self.call(words[0].removeprefix("d2csr-"), *words[1:])
        assert finished.returncode == 0, f"{shlex.join(words)}\n{finished.stdout}{finished.stderr}"
        return finished.stdout

    def captured(self) -> dict[str, Any]:
        return {"cwd": self.folder, "capture_output": True, "text": True, "check": False, "timeout": 300}

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def names(self) -> dict[str, Any]:
        """Return the names that the pages use without a definition."""
        return {
            "__name__": "page",
            "lr": torch.rand(1, 3, 24, 24),
            "hr": torch.rand(1, 3, 48, 48),
            "sr": torch.rand(1, 3, 48, 48),
        }


@pytest.fixture
def reader(call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_of_a_user: None) -> Reader:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of processes that a page starts
    return Reader(call, tmp_path, monkeypatch)


def parts(page: Path) -> dict[str, str]:
    """Return the parts of a page that stand for themselves: its sections if it describes tasks, else the page."""
    text = page.read_text()
    if page.name not in ("extending.md", "data.md"):
        return {"": text}
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(sections[1::2], sections[2::2], strict=True))


PARTS = [
    pytest.param(text, id=f"{page.relative_to(ROOT)} {title}".strip())
    for page in PAGES
    for title, text in parts(page).items()
    if any(block.language in ("bash", "python") and not block.mark for block in blocks(text))
]


@pytest.mark.slow
@pytest.mark.parametrize("text", PARTS)
def test_the_blocks_of_a_page_run(text: str, reader: Reader, tmp_path: Path) -> None:
    files = re.findall(r"`(my_[\w/]+\.\w+)`(?:,[^`]*`PYTHONPATH`)?:\n\n```\w+\n(.*?)```", text, re.DOTALL)
    for path, content in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    run = [block for block in blocks(text) if block.language in ("bash", "python") and not block.mark]
    reader.prepare("".join(block.text for block in run))
    for block in run:
        if block.text not in [content for _, content in files]:
            printed = reader.run(block)
            if "<<" in block.text:  # the numbers of a script are those on the page
                assert all(word in text for word in printed.split())
    if "train/use_" in text:  # the callback has logged its column
        assert any("train/use_11" in log.read_text() for log in tmp_path.rglob("metrics*.csv"))
