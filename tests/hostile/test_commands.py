"""Files of strangers given to the commands, each in a process with limits on memory, time and open files."""

from __future__ import annotations

import copy
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import generators
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

SECONDS = 60  # a command that hangs is killed; test_refusals_need_little_memory_and_time has the limit of 10 seconds
TRAINING = [
    *("data=pairs", "scale=2", "data.train_list=list.txt", "data.val_list=list.txt", "data.batch_size=1"),
    *("data.patch_size=8", "data.num_workers=0", "model.features=8", "model.groups=1", "model.blocks=1"),
    *("model.network.body.reduction=4", "trainer=cpu", "trainer.enable_progress_bar=false"),
]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three pairs and their list."""
    made = tmp_path_factory.mktemp("commands")
    for number in range(3):
        Image.effect_noise((64, 48), 40).convert("RGB").save(made / f"hr{number}.png")
        Image.effect_noise((32, 24), 40).convert("RGB").save(made / f"lr{number}.png")
    (made / "list.txt").write_text("".join(f"lr{number}.png hr{number}.png\n" for number in range(3)))
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    """Return a function that runs a command in a limited process, and returns its status and output."""
    script = Path(__file__).with_name("limited_commands.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "D2CSR_CACHE_DIR": str(folder / "cache")}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:

        def run_command(command: str, *arguments: str, memory: int = 2**30) -> dict[str, Any]:
            request = {"command": command, "arguments": arguments, "folder": str(folder)}
            server.stdin.write(json.dumps({**request, "memory": memory, "seconds": SECONDS}) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield run_command
        server.stdin.close()


@pytest.fixture(scope="module")
def trained(run: Run, folder: Path) -> Path:
    """The last checkpoint of a run of one epoch."""
    finished = run("train", *TRAINING, "trainer.max_epochs=1", "hydra.run.dir=run", memory=2**33)
    assert finished["status"] == 0, finished["output"]
    return folder / "run" / "checkpoints" / "last.ckpt"


def refused(finished: dict[str, Any]) -> str:
    """Return the message of a command that has ended with one."""
    output = finished["output"]
    assert finished["status"] == 1, output[-2000:]
    assert "Traceback" not in output
    assert len(output) < 20_000
    messages = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, output[-2000:]
    return output[output.index("error: ") :]


FILES = {
    **{f"{name}.pkl": data for name, data in generators.pickles().items()},
    **{f"{name}.ckpt": data for name, data in generators.checkpoints().items()},
    **{f"{name}.safetensors": data for name, data in generators.safetensors_files().items()},
}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a dtype that writes through SETITEM.pkl", "convert"),
        ("bytes made 60 times of one text.pkl", "convert"),
        ("a memo index of 2,000,000,000.pkl", "upscale"),
        ("5,000,000 tuples.pkl", "eval"),
        ("a name of control characters.pkl", "convert"),
        ("zip: a bomb.ckpt", "convert"),
        ("a network with six levels of nine.ckpt", "upscale"),
        ("a network with features, control characters.ckpt", "convert"),
        ("a body of Transformers with attention tables of 1 GB.ckpt", "upscale"),
        ("pickle: bytes made 2,000 times of one text.ckpt", "eval"),
        ("tensor: stride 0.ckpt", "train"),
        ("a network with features, 5,000,000 characters.ckpt", "train"),
        ("a weight that is NaN.ckpt", "upscale"),
        ("a shape: 100,000 dimensions.safetensors", "convert"),
        ("an architecture: nested 100,000 deep.safetensors", "eval"),
    ],
)
def test_a_checkpoint_is_refused(name: str, command: str, run: Run, folder: Path) -> None:
    path = folder / f"hostile{Path(name).suffix}"
    path.write_bytes(FILES[name])
    arguments = {
        "convert": [f"source={path}", "output=out.ckpt"],
        "upscale": [f"ckpt={path}", "input=lr0.png", "output=out", "trainer=cpu"],
        "eval": [f"ckpt={path}", "data.test_list=list.txt", "trainer=cpu", "hydra.run.dir=out"],
        "train": [*TRAINING, f"init_from={path}", "hydra.run.dir=out"],
    }
    message = refused(run(command, *arguments[command]))
    assert str(path) in message
    assert message[:-1].isprintable()
    assert not (folder / "out.ckpt").exists()
    assert not (folder / "out").exists()


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_a_checkpoint_that_is_no_regular_file_is_refused(kind: str, run: Run, folder: Path, tmp_path: Path) -> None:
    path = {"device": Path("/dev/zero"), "folder": tmp_path, "fifo": tmp_path / "fifo.ckpt"}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    assert str(path) in refused(run("convert", f"source={path}", "output=out.ckpt"))


@pytest.mark.parametrize("source", ["/dev/zero", "fifo", "large", "missing", "number"])
def test_the_data_that_a_checkpoint_names_are_checked(source: str, run: Run, trained: Path, folder: Path) -> None:
    named: Any = {"fifo": str(folder / "list.fifo"), "large": str(folder / "large.txt"), "number": 7}.get(
        source, source
    )
    if source == "fifo":
        os.mkfifo(named)
    elif source == "large":
        Path(named).touch()
        os.truncate(named, 10**11)
    content = torch.load(trained, weights_only=True)
    content["d2csr"]["data"] = {
        **{"test_list": named, "cache_dir": str(folder / "made"), "num_workers": 400, "batch_size": 10**9}
    }
    torch.save(content, folder / "named.ckpt")
    refused(run("eval", "ckpt=named.ckpt", "trainer=cpu", "hydra.run.dir=out"))
    assert not (folder / "made").exists()


def test_the_machine_is_not_chosen_by_a_checkpoint(run: Run, trained: Path, folder: Path) -> None:
    content = torch.load(trained, weights_only=True)
    machine = {"cache_dir": str(folder / "made"), "num_workers": 400, "cache": "disk", "_target_": "os.system"}
    content["d2csr"]["data"] = {"test_list": str(folder / "list.txt"), **machine}
    torch.save(content, folder / "chooses.ckpt")
    finished = run("eval", "ckpt=chooses.ckpt", "trainer=cpu", "hydra.run.dir=evaluated")
    assert finished["status"] == 0, finished["output"]
    assert f"From the checkpoint: data.test_list={folder / 'list.txt'}" in finished["output"]
    assert not (folder / "made").exists()


# Changes of a training checkpoint that are noticed when Lightning restores it, or at the first step.
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a moment that is a number": lambda v: v["optimizer_states"][0]["state"][0].update(exp_avg=1.0),
    "a moment that is missing": lambda v: v["optimizer_states"][0]["state"][0].pop("exp_avg"),
    "a step of three numbers": lambda v: v["optimizer_states"][0]["state"][0].update(step=torch.zeros(3)),
    "schedulers without states": lambda v: v["schedulers"].pop("states"),
    "schedulers whose states are a number": lambda v: v["schedulers"].update(states=1e300),
    "defaults that are a number": lambda v: v["schedulers"].update(defaults=[-1, -1]),
    "progress that is a text": lambda v: _progress(v).update(ready="x"),
    "progress that is null": lambda v: _progress(v).update(ready=None, completed=None),
    "a best score that is a text": lambda v: next(iter(v["callbacks"].values())).update(best_model_score="x"),
    "a version of noise": lambda v: v.update({"pytorch-lightning_version": "x"}),
}


def _progress(content: dict[str, Any]) -> dict[str, Any]:
    return content["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"]


@pytest.mark.parametrize("name", CHANGES)
def test_a_malformed_training_state_is_one_message(name: str, run: Run, trained: Path, folder: Path) -> None:
    content = copy.deepcopy(torch.load(trained, weights_only=True))
    CHANGES[name](content)
    torch.save(content, folder / "changed.ckpt")
    resumed = run("train", *TRAINING, "resume=changed.ckpt", "trainer.max_epochs=2", "hydra.run.dir=out", memory=2**33)
    shutil.rmtree(folder / "out", ignore_errors=True)
    assert "changed.ckpt: its training state cannot be restored (" in refused(resumed)


@pytest.mark.parametrize("kind", ["fifo", "large", "noise", "digits"])
def test_a_strange_lock_neither_blocks_nor_fills_the_memory(kind: str, run: Run, folder: Path) -> None:
    strange = folder / "strange"
    strange.mkdir()
    lock = strange / ".lock"
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "large":
        lock.touch()
        os.truncate(lock, 10**11)
    else:
        lock.write_bytes(b"\xff\xfe\0" if kind == "noise" else b"host " + b"9" * 5000)
    finished = run("train", *TRAINING, "trainer.max_epochs=1", "hydra.run.dir=strange", memory=2**33)
    shutil.rmtree(strange)
    if kind == "fifo":
        assert ".lock: not a regular file" in refused(finished)
    else:
        assert finished["status"] == 0, finished["output"]


@pytest.mark.parametrize("log", [b"\xff\xfe\0\x80\n", b'"' + b"a" * 200_000 + b"\n\n", b"a,b\n1,2\n1,2,3\n"])
def test_a_strange_log_in_a_run_folder_does_not_end_a_training(
    log: bytes, run: Run, trained: Path, folder: Path
) -> None:
    shutil.copytree(folder / "run", folder / "stranger")
    (folder / "stranger" / "csv" / "metrics.csv").write_bytes(log)
    finished = run("train", *TRAINING, "resume=stranger", "trainer.max_epochs=2", "hydra.run.dir=next", memory=2**33)
    shutil.rmtree(folder / "stranger")
    shutil.rmtree(folder / "next")
    assert finished["status"] == 0, finished["output"]


def many_pages(count: int) -> bytes:
    """A TIFF of many pages of 4×4 pixels, for which Pillow needs a millisecond each."""
    entries = [(256, 4, 4), (257, 4, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 4), (279, 4, 16)]
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    size = 2 + len(fields) + 4
    ends = [8 + size * (number + 1) if number < count - 1 else 0 for number in range(count)]
    return (
        b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<H", 8) + fields + struct.pack("<I", e) for e in ends)
    )


def many_strips(count: int) -> bytes:
    """A TIFF of 4 pixels a row, with a strip for each row."""
    entries = [(256, 1, 4), (257, 1, count), (258, 1, 8), (259, 1, 1), (262, 1, 1), (273, count, 200), (278, 1, 1)]
    entries.append((279, count, 200 + 4 * count))
    fields = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in entries)
    header = b"II*\0" + struct.pack("<IH", 8, 8) + fields + struct.pack("<I", 0)
    return header.ljust(200, b"\0") + struct.pack("<I", 8) * count + struct.pack("<I", 4) * count


def test_a_batch_goes_on_after_hostile_images(run: Run, trained: Path, folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    (images / "eps.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    (images / "cut.png").write_bytes((folder / "lr0.png").read_bytes()[:500])
    (images / "strips.tif").write_bytes(many_strips(300_000))
    (images / "pages.tif").write_bytes(many_pages(60_000))
    (images / "control\x1b[2J.png").write_bytes(b"no image")
    Image.new("L", (15_000, 13_000)).save(images / "bomb.png")  # 23 kB, 195 megapixels
    os.mkfifo(images / "fifo.png")
    (images / "folder.png").mkdir()
    shutil.copy(folder / "lr0.png", images / f"{'n' * 240}.png")
    shutil.copy(folder / "lr1.png", images / "good.png")
    finished = run("upscale", f"ckpt={trained}", "input=images", "output=results", "trainer=cpu")
    message = refused(finished)
    results = {path.name for path in (folder / "results").iterdir()}
    assert results == {"good.png", "pages.png", f"{'n' * 240}.png"}
    for name in ("eps.png", "cut.png", "strips.tif", "control\\x1b[2J.png", "bomb.png"):
        assert f"{images.name}/{name}: " in message
    assert "pages.tif: has several frames; only the first is used." in finished["output"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=images/*/../*.png"], "'..' after a wildcard is not supported"),
        (["input=~nosuchuser/a"], "there is no such user"),
        ([f"input={'n' * 300}.png"], "name too long"),
        (["input=/dev/zero"], "neither a file nor a folder"),
    ],
)
def test_a_strange_input_is_refused(arguments: list[str], message: str, run: Run, trained: Path) -> None:
    assert message in refused(run("upscale", f"ckpt={trained}", *arguments, "output=results", "trainer=cpu")).replace(
        "File name", "name"
    )


def test_sr_images_of_strangers_are_refused(run: Run, folder: Path) -> None:
    sr = folder / "sr"
    sr.mkdir()
    os.mkfifo(sr / "lr0.png")
    (sr / "lr1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    shutil.copy(folder / "hr2.png", sr / "lr2.png")
    message = refused(run("eval", "sr=sr", "data.test_list=list.txt", "scale=2", "trainer=cpu", "hydra.run.dir=out"))
    assert "lr0.png: not a regular file" in message
    assert "lr1.png: not an image that can be read" in message


def test_lists_are_not_found_in_devices(run: Run, folder: Path) -> None:
    pairs = folder / "pairs"
    for kind in ("LR", "HR"):
        (pairs / kind).mkdir(parents=True)
        os.mkfifo(pairs / kind / "a.png")
    message = refused(run("lists", "dataset=pairs", f"root={pairs}", "scale=2", f"output={folder / 'lists'}"))
    assert "not a regular file" in message
