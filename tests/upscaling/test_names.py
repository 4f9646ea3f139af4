from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from d2csr.errors import ConfigError, DataError
from d2csr.upscaling.names import InputImage, find_images, parse_kinds, plan_targets


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "sub/c.tiff", "sub/deep/d.webp", "out/old.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def names(images: list[InputImage]) -> list[str]:
    return [image.name.as_posix() for image in images]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("in/b.png", ["b.png"]),
        ("in/notes.txt", ["notes.txt"]),  # named by itself, a file is taken for an image whatever its name
        ("in", ["a.JPG", "b.png", "out/old.png", "sub/c.tiff", "sub/deep/d.webp"]),
        ("in/*.png", ["b.png"]),
        ("in/[a-b].*", ["a.JPG", "b.png"]),
        ("in/**/*.tiff", ["sub/c.tiff"]),
        ("in/*/c.*", ["sub/c.tiff"]),
        ("in/s*", ["sub/c.tiff", "sub/deep/d.webp"]),
        ("i?/sub/*", ["in/sub/c.tiff", "in/sub/deep/d.webp"]),
    ],
)
def test_a_file_a_folder_or_a_pattern(folder, source, expected) -> None:
    images = find_images(source)
    assert names(images) == expected
    assert all(image.path.is_file() for image in images)
    assert names(find_images(folder.parent / source)) == expected


def test_a_file_with_a_name_like_a_pattern_is_itself(folder) -> None:
    (folder / "x[1].png").write_bytes((folder / "b.png").read_bytes())
    assert names(find_images("in/x[1].png")) == ["x[1].png"]


def test_results_within_the_input_folder_are_no_input(folder) -> None:
    assert "out/old.png" not in names(find_images("in", "in/out"))
    assert names(find_images("in/[os]*", "in/../in/out")) == ["sub/c.tiff", "sub/deep/d.webp"]
    assert "out/old.png" in names(find_images("in", "elsewhere"))


@pytest.mark.parametrize(
    ("source", "message"), [("none", "no such file"), ("in/*.gif", "matches no image"), ("empty", "holds no image")]
)
def test_nothing_to_do_is_said(folder, source, message) -> None:
    (folder.parent / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        find_images(source)


@pytest.mark.parametrize(
    ("save", "kinds"),
    [("sr", ("sr",)), ("sr,leaves", ("sr", "leaves")), (["weights", "sr"], ("weights", "sr"))],
)
def test_what_to_save(save, kinds) -> None:
    assert parse_kinds(save) == kinds


@pytest.mark.parametrize("save", ["", None, [], "sr,all", ["sr", 3]])
def test_what_cannot_be_saved(save) -> None:
    with pytest.raises(ConfigError, match="save: must be of sr, leaves, weights, got"):
        parse_kinds(save)


def test_the_names_of_results() -> None:
    images = [InputImage(Path("in/sub/a.v2.JPG"), Path("sub/a.v2.JPG")), InputImage(Path("in/b.bmp"), Path("b.bmp"))]

    def planned(**options):
        return [[t.path.as_posix() for t in targets] for targets in plan_targets(images, "out", ["11", "2"], **options)]

    assert planned() == [["out/sub/a.v2.png"], ["out/b.png"]]
    assert planned(form="same") == [["out/sub/a.v2.JPG"], ["out/b.png"]]
    assert planned(form="tif", save=("leaves", "weights"))[1] == [
        "out/b_leaf11.tif",
        "out/b_weight11.png",
        "out/b_leaf2.tif",
        "out/b_weight2.png",
    ]
    with pytest.raises(ConfigError, match="format: must be one of png, jpg, webp, tif, same, got 'gif'"):
        planned(form="gif")


@pytest.mark.parametrize("twins", [("a.png", "a.jpg"), ("a.png", "a_leaf11.png")])
def test_two_results_of_one_name_are_refused(twins) -> None:
    images = [InputImage(Path("in") / name, Path(name)) for name in twins]
    with pytest.raises(DataError, match="would both become"):
        plan_targets(images, "out", ["11"], save=("sr", "leaves"))


def test_an_image_of_the_input_is_never_replaced(folder) -> None:
    with pytest.raises(DataError, match="would replace an image of the input"):
        plan_targets(find_images("in"), "in/../in", ["11"])
