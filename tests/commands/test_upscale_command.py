from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import d2csr
from d2csr.checkpoints import save_model
from d2csr.colormap import VIRIDIS

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "eval-x4" / "official.pkl"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    image = Image.open(GOLDEN / "eval-x4" / "china_LR4.png").convert("RGB").crop((0, 0, 40, 30))
    image.save(folder / "one.png")
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "deep" / "er" / "two.JPG", quality=100)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_keeps_its_structure_and_has_the_results_of_the_model(call, photos: Path, tmp_path: Path) -> None:
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu")
    assert finished.returncode == 0, finished.stderr
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "deep/er/two.png",
        "one.png",
    ]
    lr = torch.from_numpy(np.array(Image.open(photos / "one.png"))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = (d2csr.load_model(CHECKPOINT)(lr).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    written = np.asarray(Image.open(tmp_path / "out" / "one.png"), dtype=float)
    assert np.abs(written - expected).max() <= 1  # a rounding apart, where the exact value lies at one half
    assert (written == expected).mean() > 0.999
    assert Image.open(tmp_path / "out" / "deep" / "er" / "two.png").size == (120, 160)


def test_existing_results_are_skipped_unless_overwritten(call, photos: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={CHECKPOINT}", "input=photos/one.png", "output=out", "device=cpu"]
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "one.png"
    target.write_text("mine")
    finished = call("upscale", *arguments)
    assert finished.returncode == 0
    assert "1 of 1 images have their results already." in finished.stdout
    assert target.read_text() == "mine"
    assert call("upscale", *arguments, "overwrite=true").returncode == 0
    assert Image.open(target).size == (160, 120)


def test_a_broken_image_is_reported_and_the_rest_is_done(call, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "one.png").read_bytes()
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").write_bytes(b"")
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu")
    assert finished.returncode == 1
    assert "2 of 4 images" in finished.stderr
    assert "broken.png" in finished.stderr
    assert "empty.png: an empty file" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input=nowhere", "output=out"], "nowhere: no such file or folder"),
        (["input=nothing", "output=out"], "holds no image"),
        (["input=twins", "output=out", "suffix=/x"], "suffix: must be a part of a file name"),
    ],
)
def test_bad_input_is_named(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "twins").mkdir()
    for suffix in ("png", "jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / "twins" / f"same.{suffix}")
    finished = call("upscale", f"ckpt={CHECKPOINT}", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_jpg_and_a_png_of_one_name_and_a_gif_are_done(call, photos: Path, tmp_path: Path) -> None:
    one = Image.open(photos / "one.png")
    one.save(photos / "one.jpg", quality=100)
    one.save(photos / "two.gif", save_all=True, append_images=[Image.new("RGB", one.size)])
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "suffix=_x4", "device=cpu")
    assert finished.returncode == 0, finished.stderr
    assert "two.gif: has several frames; only the first is used" in finished.stdout + finished.stderr
    assert sorted(files(tmp_path / "out")) == ["deep/er/two_x4.png", "one_jpg_x4.png", "one_png_x4.png", "two_x4.png"]
    gif, png = (np.asarray(Image.open(tmp_path / "out" / name), float) for name in ("two_x4.png", "one_png_x4.png"))
    assert np.abs(gif - png).mean() < 8  # 256 colours of the first frame


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_several_kinds_of_results(call, photos: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={CHECKPOINT}", "input=photos/one.png", "output=out", "device=cpu"]
    finished = call("upscale", *arguments, "save=sr,leaves,weights")
    assert finished.returncode == 0, finished.stderr
    leaves = ("11", "12", "21", "22")
    parts = [f"one_{kind}{leaf}.png" for kind in ("leaf", "weight") for leaf in leaves]
    assert sorted(files(tmp_path / "out")) == ["one.png", *parts]
    shades = [np.asarray(Image.open(tmp_path / "out" / f"one_weight{leaf}.png"), dtype=int) for leaf in leaves]
    assert shades[0].shape == (120, 160)
    assert np.abs(sum(shades) - 255).max() <= 2  # they sum to 1, but for rounding
    coloured = Image.open(tmp_path / "out" / "one_weight11.png").convert("RGB")
    assert np.array_equal(np.asarray(coloured), np.frombuffer(VIRIDIS, np.uint8).reshape(256, 3)[shades[0]])
    (tmp_path / "out" / "one.png").write_text("mine")
    (tmp_path / "out" / "one_leaf12.png").unlink()
    assert call("upscale", *arguments, "save=[sr,leaves,weights]").returncode == 0
    assert (tmp_path / "out" / "one.png").read_text() == "mine"  # only what is missing is made
    assert len(files(tmp_path / "out")) == 9


def test_patterns_formats_and_names_that_need_quotes(call, photos: Path, tmp_path: Path) -> None:
    (photos / "one.png").rename(photos / "one, (1) = é.png")
    for source in ("photos/**/*.*", "photos/one, (1) = é.png"):
        finished = call("upscale", f"ckpt={CHECKPOINT}", f"input={source}", "output=my results", "format=same")
        assert finished.returncode == 0, finished.stderr
    assert sorted(files(tmp_path / "my results")) == ["deep/er/two.JPG", "one, (1) = é.png"]
    assert Image.open(tmp_path / "my results" / "deep" / "er" / "two.JPG").format == "JPEG"


def test_16_bits_alpha_and_orientation(call, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = Image.open(GOLDEN / "eval-x4" / "china_LR4.png").convert("RGB").crop((0, 0, 24, 16))
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 250 + 7
    Image.fromarray(grey).save(tmp_path / "in" / "grey.png")
    opaque = image.convert("RGBA")
    opaque.save(tmp_path / "in" / "opaque.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "in" / "lying.png", exif=exif)
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "in" / "upright.png")
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=in", "output=out", "device=cpu")
    assert finished.returncode == 0, finished.stderr
    with Image.open(tmp_path / "out" / "grey.png") as result:
        assert result.mode == "I;16"
        values = np.asarray(result, dtype=float)
    lr = torch.from_numpy(grey.astype(np.float32) / 65535).expand(1, 3, -1, -1)
    with torch.no_grad():
        expected = d2csr.load_model(CHECKPOINT)(lr)[0].permute(1, 2, 0).numpy() @ (0.299, 0.587, 0.114)
    assert np.abs(values - expected.clip(0, 1) * 65535).max() < 2
    assert len(np.unique(values)) > 1000
    assert set(np.asarray(Image.open(tmp_path / "out" / "opaque.png"))[..., 3].flat) == {255}
    assert (tmp_path / "out" / "lying.png").read_bytes() == (tmp_path / "out" / "upright.png").read_bytes()


@pytest.mark.slow
def test_self_ensemble_and_memory_are_applied(call, photos: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={CHECKPOINT}", "input=photos/one.png", "device=cpu"]
    assert call("upscale", *arguments, "output=plain").returncode == 0
    assert call("upscale", *arguments, "output=ensemble", "self_ensemble=true").returncode == 0
    expected = d2csr.upscale(d2csr.load_model(CHECKPOINT), Image.open(photos / "one.png"), self_ensemble=True)
    written = np.asarray(Image.open(tmp_path / "ensemble" / "one.png"), dtype=int)
    assert np.abs(written - np.asarray(expected, dtype=int)).max() <= 1
    assert files(tmp_path / "plain") != files(tmp_path / "ensemble")
    tiled = call("upscale", *arguments, "output=tiles", "inference.mode=tiles", "inference.tile=16")
    assert tiled.returncode == 0
    assert "approximate" in tiled.stdout
    tight = call("upscale", *arguments, "output=tight", "inference.memory=1MB")
    assert tight.returncode == 1
    assert "one.png: memory: an image of 40×30 needs" in tight.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"some text", "not an image that can be read"),
        ("cut", "a broken image"),
        ("large", "claims 40×30 = 1,200 pixels, above the limit of 1,000"),
    ],
)
def test_each_bad_image_is_named(call, photos: Path, tmp_path: Path, content, message: str) -> None:
    whole = (photos / "one.png").read_bytes()
    bad = {"cut": whole[: len(whole) // 2], "large": whole}.get(content, content)
    (photos / "deep" / "bad.png").write_bytes(bad)
    Image.new("RGB", (1, 1), "red").save(photos / "one.png")
    limit = ["max_pixels=1000"] if content == "large" else []
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu", *limit)
    assert finished.returncode == 1
    assert f"bad.png: {message}" in finished.stderr
    assert Image.open(tmp_path / "out" / "one.png").size == (4, 4)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("output=photos/one.png", "photos/one.png: cannot be written to"),
        ("output=photos", "would replace an input image"),
        ("device=tpu", "device: must be cpu, cuda, cuda:1 or mps, got 'tpu'"),
        ("device=cuda:99", "device=cuda:99: there is no such device here"),
        ("save=sr,all", "save: must be of sr, leaves, weights"),
        ("format=gif", "format: must be one of"),
        ("quality=0", "quality: must be a whole number from 1 to 100"),
        ("precision=64", "inference.precision: must be one of"),
        ("inference.memory=lots", "inference.memory: must be auto"),
    ],
)
def test_impossible_values_are_named(call, photos: Path, argument: str, message: str) -> None:
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", argument)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_device_and_another_accelerator_are_one_message(call, photos: Path) -> None:
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu", "trainer=gpu")
    assert finished.returncode == 1
    assert finished.stderr == "error: device=cpu: trainer.accelerator=gpu is another one; choose one of them.\n"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("input=~nosuchuser/photos", "~nosuchuser/photos: there is no such user"),
        ("output=~nosuchuser", "~nosuchuser: there is no such user"),
        ("input=photos/*/../../*.png", "'..' after a wildcard is not supported"),
        ("overwrite=maybe", "overwrite: must be true or false"),
        ("quality=true", "quality: must be a whole number"),
        ("max_pixels=1e6", "max_pixels: must be a whole number"),
        ("save=", "save: must be of sr, leaves, weights, got nothing"),
    ],
)
def test_impossible_paths_and_settings_are_named(call, photos: Path, argument: str, message: str) -> None:
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", argument)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_name_that_is_too_long_fails_for_its_image_only(call, photos: Path, tmp_path: Path) -> None:
    (photos / "one.png").rename(photos / f"{'n' * 251}.png")
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "save=sr,leaves", "device=cpu")
    assert finished.returncode == 1
    assert "1 of 2 images could not be super-resolved" in finished.stderr
    assert "File name too long" in finished.stderr
    written = [path.name for path in (tmp_path / "out").rglob("*.png")]
    assert {"two.png", f"{'n' * 251}.png", "two_leaf11.png"} < set(written)
    alone = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu", "overwrite=true")
    assert alone.returncode == 0, alone.stderr


def test_an_unreadable_folder_is_reported_and_the_rest_is_done(call, photos: Path, tmp_path: Path, monkeypatch) -> None:
    scan = os.scandir

    def refuse(path="."):
        if str(path) == "photos/deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "error: photos/deep: the folder cannot be read (Permission denied); its images are left out."
    )
    assert (tmp_path / "out" / "one.png").is_file()


def test_the_memory_is_checked_before_an_image_is_decoded(call, photos: Path) -> None:
    whole = (photos / "one.png").read_bytes()
    (photos / "one.png").write_bytes(whole[:60])  # the header only
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos/one.png", "output=out", "inference.memory=1MB")
    assert "one.png: memory: an image of 40×30 needs" in finished.stderr


def test_control_characters_in_names_do_not_reach_the_terminal(call, photos: Path) -> None:
    (photos / "one.png").rename(photos / "\x1b[31mone.png")
    (photos / "\x1b[32mbad.png").write_bytes(b"text")
    finished = call("upscale", f"ckpt={CHECKPOINT}", "input=photos", "output=out", "device=cpu")
    assert "out/\\x1b[31mone.png" in finished.stdout
    assert "failed: photos/\\x1b[32mbad.png" in finished.stdout
    assert "\x1b" not in finished.stdout


@pytest.mark.slow
def test_short_keys_are_the_nested_ones(call, photos: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={CHECKPOINT}", "input=photos/one.png", "device=cpu"]
    for folder, keys in (
        ("short", ["precision=bf16", "self_ensemble=true"]),
        ("nested", ["inference.precision=bf16", "inference.self_ensemble=true"]),
    ):
        finished = call("upscale", *arguments, f"output={folder}", *keys)
        assert finished.returncode == 0, finished.stderr
    assert files(tmp_path / "short") == files(tmp_path / "nested")
    assert call("upscale", *arguments, "output=plain").returncode == 0
    assert files(tmp_path / "plain") != files(tmp_path / "short")


def test_weights_that_are_not_finite_are_refused(call, photos: Path, random_model, tmp_path: Path) -> None:
    model = random_model(2)
    name, parameter = list(model.named_parameters())[3]
    parameter.data.view(-1)[0] = float("inf")
    save_model(tmp_path / "inf.ckpt", model)
    finished = call("upscale", "ckpt=inf.ckpt", "input=photos", "output=out")
    assert finished.returncode == 1
    assert name in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    image = Image.open(GOLDEN / "eval-x4" / "china_LR4.png").convert("RGB")
    for index in range(7):
        image.crop((index, 0, index + 40, 30)).save(folder / f"{index}.png")
    return folder


@pytest.mark.slow
def test_two_processes_share_the_images(run, many: Path, tmp_path: Path) -> None:
    (many / "broken.png").write_bytes(b"")
    (many / "text.png").write_bytes(b"text")
    arguments = [f"ckpt={CHECKPOINT}", "input=many", "device=cpu"]
    alone = run("upscale", *arguments, "output=alone")
    both = run("upscale", *arguments, "output=both", "trainer=ddp_cpu")
    assert alone.returncode == both.returncode == 1
    assert len(files(tmp_path / "alone")) == 7
    assert files(tmp_path / "both") == files(tmp_path / "alone")
    done = [line.split()[1] for line in both.stdout.splitlines() if "/9 " in line]
    assert sorted(done) == [f"both/{index}.png" for index in range(7)]
    assert "2 of 9 images" in both.stderr  # from both processes
    assert both.stderr.count("broken.png: an empty file") == both.stderr.count("text.png: not an image") == 1


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
@pytest.mark.parametrize(("ended_by", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_incomplete_file(
    python: str, many: Path, tmp_path: Path, trainer: str, ended_by, status: int
) -> None:
    for path in many.iterdir():
        Image.open(path).resize((160, 120)).save(path)
    command = [python, "-m", "d2csr.commands.upscale", f"ckpt={CHECKPOINT}", "input=many", "output=out"]
    process = subprocess.Popen(
        [*command, f"trainer={trainer}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and its children inherit that: a person's command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").rglob("*.png")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, ended_by)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    if ended_by == signal.SIGINT:
        assert "error: interrupted" in errors
    assert "Traceback" not in errors
    results = list((tmp_path / "out").iterdir())
    assert 0 < len(results) < 7
    for path in results:
        assert path.suffix == ".png"
        Image.open(path).load()
