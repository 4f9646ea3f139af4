from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from d2csr.checks import SAVED_BY_UPSCALE
from d2csr.errors import ConfigError, DataError
from d2csr.upscaling.names import InputImage, find_images, plan_jobs
from d2csr.upscaling.pipeline import Options


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
        ("in/notes.txt", ["notes.txt"]),  # a file that is named itself may have any suffix
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
    images, problems = find_images(source)
    assert names(images) == expected
    assert problems == []
    assert all(image.path.is_file() for image in images)
    assert names(find_images(folder.parent / source)[0]) == expected


def test_a_file_with_a_name_like_a_pattern_is_itself(folder) -> None:
    (folder / "x[1].png").write_bytes((folder / "b.png").read_bytes())
    assert names(find_images("in/x[1].png")[0]) == ["x[1].png"]


def test_results_inside_the_input_folder_are_no_input(folder) -> None:
    assert "out/old.png" not in names(find_images("in", "in/out")[0])
    assert names(find_images("in/[os]*", "in/../in/out")[0]) == ["sub/c.tiff", "sub/deep/d.webp"]
    assert "out/old.png" in names(find_images("in", "elsewhere")[0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none", "no such file"),
        ("in/*.gif", "matches no image"),
        ("empty", "holds no image"),
        ("fifo", "neither a file nor a folder"),
    ],
)
def test_no_image_is_an_error(folder, source, message) -> None:
    (folder.parent / "empty").mkdir()
    os.mkfifo(folder.parent / "fifo")
    with pytest.raises(DataError, match=message):
        find_images(source)


def test_the_names_of_results() -> None:
    images = [InputImage(Path("in/sub/a.v2.JPG"), Path("sub/a.v2.JPG")), InputImage(Path("in/b.bmp"), Path("b.bmp"))]

    def planned(**options):
        return [
            [path.as_posix() for path in job.targets.values()]
            for job in plan_jobs(images, "out", ["11", "2"], Options(**options))
        ]

    assert planned() == [["out/sub/a.v2.png"], ["out/b.png"]]
    assert planned(file_format="same") == [["out/sub/a.v2.JPG"], ["out/b.png"]]
    assert planned(file_format="tif", save=("leaves", "weights"))[1] == [
        "out/b_leaf11.tif",
        "out/b_weight11.png",
        "out/b_leaf2.tif",
        "out/b_weight2.png",
    ]
    with pytest.raises(ConfigError, match="format: must be one of png, jpg, webp, tif, same, got 'gif'"):
        planned(file_format="gif")


def test_images_that_differ_by_their_suffix_keep_it_in_the_name() -> None:
    images = [InputImage(Path("in") / name, Path(name)) for name in ("a.jpg", "a.png", "b.png", "sub/a.png")]

    def planned(**options):
        return [job.targets["sr"].as_posix() for job in plan_jobs(images, "out", [], Options(**options))]

    assert planned() == ["out/a_jpg.png", "out/a_png.png", "out/b.png", "out/sub/a.png"]
    assert planned(suffix="_x4") == ["out/a_jpg_x4.png", "out/a_png_x4.png", "out/b_x4.png", "out/sub/a_x4.png"]
    assert planned(file_format="same") == ["out/a.jpg", "out/a.png", "out/b.png", "out/sub/a.png"]


def test_a_suffix_is_a_part_of_each_name() -> None:
    options = Options(save=SAVED_BY_UPSCALE, suffix=" (4)")
    [job] = plan_jobs([InputImage(Path("a.png"), Path("a.png"))], "out", ["11"], options)
    assert [path.name for path in job.targets.values()] == ["a (4).png", "a (4)_leaf11.png", "a (4)_weight11.png"]
    for suffix in ("/x", "a\\b", "\0", "\n"):
        with pytest.raises(ConfigError, match="suffix: must be a part of a file name"):
            Options(suffix=suffix)


def test_results_that_exist_are_left_unless_they_are_to_be_replaced(folder) -> None:
    images, _ = find_images("in/*.*")
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / "a.png").touch()
    (folder.parent / "out" / "b_leaf11.png").touch()
    jobs = plan_jobs(images, "out", ["11"], Options(save=("sr", "leaves")))
    assert [(job.number, list(job.targets)) for job in jobs] == [(1, ["leaf11"]), (2, ["sr"])]
    assert [job.number for job in plan_jobs(images, "out", ["11"], Options())] == [1]
    assert len(plan_jobs(images, "out", ["11"], Options(overwrite=True))) == 2


def test_results_beside_their_images_are_no_input_of_the_next_run(folder) -> None:
    for name in ("a_x4.png", "a_x4_leaf11.png", "sub/c_x4_weight2.png", "a_x4_old.png"):
        Image.new("L", (2, 2)).save(folder / name)
    found = names(find_images("in", "in", "_x4")[0])
    assert found == ["a.JPG", "a_x4_old.png", "b.png", "out/old.png", "sub/c.tiff", "sub/deep/d.webp"]
    assert "a_x4.png" in names(find_images("in", "in")[0])
    assert "a_x4.png" in names(find_images("in", "elsewhere", "_x4")[0])


@pytest.mark.parametrize("twins", [("a.png", "a.jpg", "a_jpg.tif"), ("a.png", "a_leaf11.png")])
def test_two_results_of_one_name_are_refused(twins) -> None:
    images = [InputImage(Path("in") / name, Path(name)) for name in twins]
    with pytest.raises(DataError, match="would both become"):
        plan_jobs(images, "out", ["11"], Options(save=("sr", "leaves")))


def test_an_input_image_is_never_replaced(folder) -> None:
    with pytest.raises(DataError, match="would replace an input image"):
        plan_jobs(find_images("in")[0], "in/../in", ["11"], Options())


@pytest.mark.parametrize("pattern", ["in/*/../../*.png", "in/**/..", "i*/../x/*.png"])
def test_parent_folders_after_a_wildcard_are_refused(folder, pattern) -> None:
    with pytest.raises(DataError, match=r"'\.\.' after a wildcard is not supported"):
        find_images(pattern)


def test_results_of_a_pattern_stay_below_the_output_folder(folder) -> None:
    images, _ = find_images("in/sub/../*/*.tiff")
    assert names(images) == ["sub/c.tiff"]
    [job] = plan_jobs(images, "out", [], Options())
    assert (folder.parent / job.targets["sr"]).resolve() == folder.parent / "out" / "sub" / "c.png"


@pytest.fixture
def unreadable(folder, monkeypatch) -> Path:
    """A subfolder that cannot be listed, also by root, whom permissions do not stop."""
    scan = os.scandir

    def refuse(path="."):
        if Path(path).resolve() == folder / "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return folder / "sub"


@pytest.mark.parametrize("source", ["in", "in/**/*.*", "in/**", "in/**/*", "i[n]/*", "in/*/*", "in/su[b]/*.tiff"])
def test_an_unreadable_folder_is_reported_once(unreadable, source) -> None:
    if source == "in/su[b]/*.tiff":
        with pytest.raises(DataError, match=r"matches no image.*\nin/sub: the folder cannot be read \(Permission den"):
            find_images(source)
        return
    images, problems = find_images(source)
    assert any(name.endswith("out/old.png") for name in names(images))
    assert problems == ["in/sub: the folder cannot be read (Permission denied); its images are left out."]


@pytest.mark.parametrize(("path", "message"), [("~nosuchuser/a", "there is no such user"), ("a\0b", "a NUL character")])
def test_impossible_paths_are_messages(folder, path, message) -> None:
    with pytest.raises(DataError, match=message):
        find_images(path)
    with pytest.raises(DataError, match=message):
        find_images("in", path)
    with pytest.raises(DataError, match=message):
        plan_jobs([], path, [], Options())
