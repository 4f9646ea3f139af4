from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from d2csr.data.lists import ImagePair
from d2csr.evaluation import Report
from d2csr.evaluation.tables import text, write_tables

PSNRS = [30.0, 21.5, 27.0, 24.5, 36.0]


def methods(psnr, ssim=0.8, lpips=None, leaves=True):
    others = {} if lpips is None else {"lpips": lpips}
    between = {name: {"psnr": psnr - lower, "ssim": ssim, **others} for name, lower in (("leaf 11", 2), ("mean", 1))}
    ends = [{"psnr": psnr - 3, "ssim": 0.5, **others}, {"psnr": psnr, "ssim": ssim, **others}]
    return {"bicubic": ends[0], **(between if leaves else {}), "fusion": ends[1]}


def pairs(count):
    return [ImagePair(Path(f"lr/{n}.png"), Path(f"hr/{n}.png"), f"list.txt:{n + 1}") for n in range(count)]


def report(*images, **others):
    return Report(4, pairs(len(images)), {"d2csr": list(images), **others})


def sections(table):
    return [section.splitlines() for section in table.split("\n\n")]


def test_the_files_hold_each_image_and_the_mean(tmp_path):
    images = [methods(psnr, ssim) for psnr, ssim in ((30.0, 0.9), (20.0, 0.5))]
    written = report(*images).write(tmp_path / "deep" / "out")
    assert written == tmp_path / "deep" / "out" / "metrics.json"
    found = json.loads(written.read_text())
    assert [image.pop("methods") for image in found["images"]] == images
    assert {key: found[key] for key in ("protocol", "scale", "method", "mean", "images")} == {
        "protocol": "d2csr",
        "scale": 4,
        "method": "fusion",
        "mean": {"psnr": 25.0, "ssim": 0.7},
        "images": [
            {"lr": "lr/0.png", "hr": "hr/0.png", "psnr": 30.0, "ssim": 0.9},
            {"lr": "lr/1.png", "hr": "hr/1.png", "psnr": 20.0, "ssim": 0.5},
        ],
    }
    assert found["methods"]["bicubic"] == {"psnr": 22.0, "ssim": 0.5}
    assert "protocols" not in found
    with (written.parent / "metrics.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[:4] for row in rows] == [
        ["lr", "hr", "psnr", "ssim"],
        ["lr/0.png", "hr/0.png", "30.0", "0.9"],
        ["lr/1.png", "hr/1.png", "20.0", "0.5"],
    ]
    names = [f"{method}/{metric}" for method in ("bicubic", "leaf 11", "mean", "fusion") for metric in ("psnr", "ssim")]
    assert rows[0][4:] == names
    assert rows[1][4:] == ["27.0", "0.5", "28.0", "0.9", "29.0", "0.9", "30.0", "0.9"]


def test_the_statistics_of_the_leaves_are_written_for_each_image_that_has_them(tmp_path):
    def written(*leaves):
        images = [methods(30.0 - number) for number in range(len(leaves))]
        path = Report(4, pairs(len(leaves)), {"d2csr": images}, leaves=leaves).write(tmp_path)
        return json.loads(path.read_text())

    leaves = [{"distance": 0.02, "weight_entropy": 0.75}, {"distance": 0.04, "weight_entropy": 0.25}]
    found = written(*leaves)
    assert [image["leaves"] for image in found["images"]] == leaves
    assert found["leaves"] == pytest.approx({"distance": 0.03, "weight_entropy": 0.5})
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["leaves/distance"] for row in csv.DictReader(file)] == ["0.02", "0.04"]
    found = written(leaves[0], {})
    assert [image["leaves"] for image in found["images"]] == [leaves[0], {}]
    assert found["leaves"] == {}  # a mean over some of the images would mislead
    assert "leaves" not in written({})


def test_other_protocols_are_reported_beside_the_main_one(tmp_path):
    y = [methods(31.0, 0.6, leaves=False), methods(23.0, 0.4, leaves=False)]
    made = report(methods(30.0), methods(20.0), y=y)
    found = json.loads(made.write(tmp_path).read_text())
    assert found["protocol"] == "d2csr"
    assert found["mean"]["psnr"] == 25.0
    assert found["protocols"]["y"]["mean"] == {"psnr": 27.0, "ssim": 0.5}
    assert [image["psnr"] for image in found["protocols"]["y"]["images"]] == [31.0, 23.0]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["psnr"], row["psnr_y"], row["ssim_y"]) for row in rows] == [
        ("30.0", "31.0", "0.6"),
        ("20.0", "23.0", "0.4"),
    ]
    title, _, *rows = sections(text(made))[1]
    assert title == "×4, 2 images, protocol y (8-bit)"
    assert [row.split() for row in rows] == [
        ["bicubic", "24.00", "+0.00", "0.5000"],
        ["fusion", "27.00", "+3.00", "0.5000"],
    ]


def test_the_table_has_a_row_for_each_method():
    title, header, *rows = sections(text(report(methods(30.0), methods(20.0))))[0]
    assert title == "×4, 2 images, protocol d2csr (float, PSNR clamped, SSIM not clamped)"
    assert "LPIPS" not in header
    assert [row[:12].strip() for row in rows] == ["bicubic", "leaf 11", "mean", "fusion"]
    assert [row[12:].split() for row in rows] == [
        ["22.00", "+0.00", "0.5000"],
        ["23.00", "+1.00", "0.8000"],
        ["24.00", "+2.00", "0.8000"],
        ["25.00", "+3.00", "0.8000"],
    ]


def test_the_table_names_the_three_worst_images():
    worst = sections(text(report(*map(methods, PSNRS))))[-1]
    assert worst[0].startswith("worst")
    assert [line.split() for line in worst[1:]] == [
        ["1.png", "21.50", "+3.00", "0.8000"],
        ["3.png", "24.50", "+3.00", "0.8000"],
        ["2.png", "27.00", "+3.00", "0.8000"],
    ]


def test_one_image_has_no_worst_table():
    assert sections(text(report(methods(30.0)))) == [sections(text(report(methods(30.0))))[0]]
    assert text(report(methods(30.0))).startswith("×4, 1 image, protocol d2csr (float, ")


def test_leaves_that_one_image_lacks_are_left_out_with_a_note(tmp_path):
    made = report(methods(30.0), methods(20.0, leaves=False), methods(25.0))
    lines = sections(text(made))[0]
    assert [line[:12].strip() for line in lines[2:4]] == ["bicubic", "fusion"]
    assert lines[4] == "(Leaves left out: 1 of the images are too large; compare=true includes them.)"
    found = json.loads(made.write(tmp_path).read_text())
    assert list(found["methods"]) == ["bicubic", "fusion"]
    assert found["mean"]["psnr"] == 25.0


def test_without_comparison_there_is_no_note():
    table = text(report(methods(30.0, leaves=False), methods(20.0, leaves=False)))
    assert "Leaves left out" not in table


def test_lpips_is_written_if_computed(tmp_path):
    y = [methods(psnr, leaves=False) for psnr in (31.0, 22.0)]
    made = report(methods(30.0, lpips=0.25), methods(20.0, lpips=0.5), y=y)
    found = json.loads(made.write(tmp_path).read_text())
    assert found["mean"]["lpips"] == 0.375
    assert [image["lpips"] for image in found["images"]] == [0.25, 0.5]
    assert "lpips" not in found["protocols"]["y"]["mean"]
    with (tmp_path / "metrics.csv").open() as file:
        names = next(csv.reader(file))
    assert names[:7] == ["lr", "hr", "psnr", "ssim", "lpips", "psnr_y", "ssim_y"]
    assert {"bicubic/lpips", "fusion/psnr_y"} < set(names)
    assert "fusion/lpips_y" not in names
    main, other, _, worst = sections(text(made))
    assert main[1].split()[-1] == "LPIPS"
    assert main[-1].split()[-1] == "0.3750"
    assert other[1].split()[-1] == "SSIM"
    assert [worst[1].split()[place] for place in (0, -1)] == ["1.png", "0.5000"]


def test_the_infinite_psnr_of_identical_images_is_null(tmp_path):
    content = report(methods(30.0), methods(math.inf, 1.0)).write(tmp_path).read_text()
    found = json.loads(content, parse_constant=pytest.fail)
    assert [image["psnr"] for image in found["images"]] == [30.0, None]
    assert found["mean"]["psnr"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_score_that_json_cannot_hold_is_null(value, tmp_path):
    made = report(methods(30.0, 0.9, 0.1), methods(value, value, value), y=[methods(30.0), methods(value, value)])
    found = json.loads(made.write(tmp_path).read_text(), parse_constant=pytest.fail)
    assert found["images"][1].pop("methods")["fusion"] == {"psnr": None, "ssim": None, "lpips": None}
    assert found["images"][0].pop("methods")["fusion"] == {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1}
    assert found["images"][0] == {"lr": "lr/0.png", "hr": "hr/0.png", "psnr": 30.0, "ssim": 0.9, "lpips": 0.1}
    assert found["images"][1] == {"lr": "lr/1.png", "hr": "hr/1.png", "psnr": None, "ssim": None, "lpips": None}
    assert found["mean"] == {"psnr": None, "ssim": None, "lpips": None}
    assert found["methods"]["bicubic"] == {"psnr": None, "ssim": 0.5, "lpips": None}
    assert found["protocols"]["y"]["mean"] == {"psnr": None, "ssim": None}


def test_nan_is_worse_than_any_psnr():
    worst = sections(text(report(*map(methods, [30.0, 20.0, math.nan, 25.0, 40.0]))))[-1]
    assert [line.split()[0] for line in worst[1:]] == ["2.png", "1.png", "3.png"]


def test_control_characters_in_names_are_escaped_on_the_terminal_only(tmp_path):
    lr = "lr/\x1b]0;title\x07\r\n\u202e\udcff.png"
    made = Report(4, [ImagePair(Path(lr), Path("hr.png")), *pairs(1)], {"d2csr": [methods(20.0), methods(30.0)]})
    table = text(made)
    assert "\\x1b]0;title\\x07\\r\\n\\u202e\\udcff.png" in table
    assert all(character.isprintable() or character == "\n" for character in table)
    assert json.loads(made.write(tmp_path).read_text())["images"][0]["lr"] == lr
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert next(csv.DictReader(file))["lr"] == lr


def test_files_appear_complete_or_not_at_all(tmp_path, monkeypatch):
    report(methods(30.0)).write(tmp_path)
    write_tables(report(methods(30.0)), tmp_path)
    before = (tmp_path / "metrics.json").read_text()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        report(methods(20.0)).write(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        write_tables(report(methods(20.0)), tmp_path)
    assert (tmp_path / "metrics.json").read_text() == before
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["metrics.csv", "metrics.json", "table.csv", "table.md", "table.tex"]
