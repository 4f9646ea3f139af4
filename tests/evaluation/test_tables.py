from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from d2csr.data.lists import ImagePair
from d2csr.evaluation import Report
from d2csr.evaluation.report import SeedGroup, std_scores
from d2csr.evaluation.tables import text, write_tables

PSNRS = {"bicubic": (20.0, 22.0), "run_1": (24.0, 25.0), "run_2": (24.5, 26.5), "SwinIR & co": (27.0, 30.0)}


def report(**settings):
    pairs = [ImagePair(Path(f"lr/{n}.png"), Path(f"hr/{n}.png"), f"list.txt:{n + 1}") for n in range(2)]
    images = {
        protocol: [
            {name: {"psnr": values[n] + offset, "ssim": values[n] / 100} for name, values in PSNRS.items()}
            for n in range(2)
        ]
        for protocol, offset in (("d2csr", 0), ("y", 1))
    }
    for image in images["d2csr"]:
        image["SwinIR & co"]["lpips"] = 0.25
    seeds = [SeedGroup(("run_1", "run_2"), (5, 7))]
    return Report(4, pairs, images, **{"method": "run_1", "seeds": seeds, **settings})


def write(made, folder):
    write_tables(made, folder)
    return made.write(folder)


def test_mean_and_standard_deviation_over_seeds_are_numpys(tmp_path):
    means = [np.mean(PSNRS[name]) for name in ("run_1", "run_2")]
    [(group, mean, std)] = report().over_seeds("d2csr")
    assert group.seeds == (5, 7)
    assert mean["psnr"] == pytest.approx(np.mean(means))
    assert std["psnr"] == pytest.approx(np.std(means, ddof=1))
    found = json.loads(write(report(), tmp_path).read_text())["seeds"]
    assert found == [{"methods": ["run_1", "run_2"], "seeds": [5, 7], "mean": mean, "std": std}]
    assert json.loads((tmp_path / "metrics.json").read_text())["protocols"]["y"]["seeds"][0]["std"] == std


def test_the_standard_deviation_with_an_infinite_psnr_is_nan():
    assert math.isnan(std_scores([{"psnr": math.inf}, {"psnr": 30.0}])["psnr"])


def test_the_screen_shows_all_methods_by_each_protocol_and_the_seeds():
    first, other, note, worst = text(report()).split("\n\n")
    *rows, seeds, about_seeds = first.splitlines()[2:]
    assert [row[:14].strip() for row in rows] == list(PSNRS)
    assert seeds == "run_1, run_2 (2 seeds)  25.00 ± 0.71         +4.00  0.2500 ± 0.0071       –"
    assert about_seeds == "(± is the sample standard deviation over the seeds.)"
    assert other.splitlines()[0] == "×4, 2 images, protocol y (8-bit)"
    assert [line.split()[-3:] for line in other.splitlines()[2:4]] == [
        ["22.00", "+0.00", "0.2100"],
        ["25.50", "+3.50", "0.2450"],
    ]
    assert "not comparable" in note
    assert worst.startswith("worst of run_1 ")
    assert worst.splitlines()[1].split() == ["0.png", "24.00", "+4.00", "0.2400"]


def test_the_table_as_csv_has_a_row_for_each_method_and_group(tmp_path):
    write(report(), tmp_path)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["bicubic", "run_1", "run_2", "SwinIR & co", "run_1, run_2 (2 seeds)"]
    assert [float(row["psnr"]) for row in rows] == [21.0, 24.5, 25.5, 28.5, 25.0]
    assert [float(row["psnr_y"]) for row in rows] == [22.0, 25.5, 26.5, 29.5, 26.0]
    assert [row["lpips"] for row in rows] == ["", "", "", "0.25", ""]
    assert [bool(row["psnr_std"]) for row in rows] == [False, False, False, False, True]


def test_the_table_as_markdown_and_latex(tmp_path):
    write(report(), tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0] == "×4, 2 images, protocols d2csr (float, PSNR clamped, SSIM not clamped), y (8-bit)"
    assert lines[2] == "| method | PSNR (dB) | SSIM | LPIPS | PSNR (dB), y | SSIM, y |"
    assert lines[5] == "| run_1 | 24.50 | 0.2450 | – | 25.50 | 0.2450 |"
    assert (
        lines[8] == "| run_1, run_2 (2 seeds) | 25.00 ± 0.71 | 0.2500 ± 0.0071 | – | 26.00 ± 0.71 | 0.2500 ± 0.0071 |"
    )
    lines = (tmp_path / "table.tex").read_text().splitlines()
    assert r"run\_1 & 24.50 & 0.2450 & – & 25.50 & 0.2450 \\" in lines
    assert r"SwinIR \& co & 28.50 & 0.2850 & 0.2500 & 29.50 & 0.2850 \\" in lines
    assert r"25.00 $\pm$ 0.71 & 0.2500 $\pm$ 0.0071" in lines[9]


def test_metrics_where_lower_is_better_have_an_arrow(tmp_path):
    made = report(method="SwinIR & co", metrics={"lpips": {"library": "torchmetrics 1.9.0", "lower_is_better": True}})
    found = json.loads(write(made, tmp_path).read_text())
    assert found["metrics"] == made.metrics
    lines = text(made).splitlines()
    assert lines[1].endswith("SSIM  LPIPS ↓")
    assert len(lines[1]) == len(lines[2]) == len(lines[5])
    assert (tmp_path / "table.md").read_text().splitlines()[2].count("| LPIPS ↓ |") == 1
    assert r"& LPIPS $\downarrow$ &" in (tmp_path / "table.tex").read_text()


def test_all_tables_say_that_8_bit_images_were_scored(tmp_path):
    made = report(eight_bit=True)
    found = json.loads(write(made, tmp_path).read_text())
    assert found["scored_on"] == found["protocols"]["y"]["scored_on"] == "8-bit"
    assert (tmp_path / "table.md").read_text().startswith("×4, 2 images, protocols d2csr (8-bit), y (8-bit)\n")
    assert "protocols d2csr (8-bit), y (8-bit); " in (tmp_path / "table.tex").read_text().splitlines()[0]


def test_oracles_are_apart_from_the_methods(tmp_path):
    psnrs = {"bicubic": 20.0, "leaf 1": 24.0, "mean": 24.5, "fusion": 25.0, "oracle per pixel": 27.0}
    image = {name: {"psnr": psnr, "ssim": 0.5} for name, psnr in psnrs.items()}
    made = Report(4, report().pairs[:1], {"d2csr": [image]}, about={"environment": {"command": "d2csr-eval"}})
    found = json.loads(write(made, tmp_path).read_text())
    for level in (found, found["images"][0]):
        assert list(level["methods"]) == ["bicubic", "leaf 1", "mean", "fusion"]
        assert level["oracle"] == {"per pixel": {"psnr": 27.0, "ssim": 0.5}}
    assert found["environment"] == {"command": "d2csr-eval"}
    with (tmp_path / "metrics.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["oracle per pixel/psnr"] == "27.0"
    lines = text(made).splitlines()
    assert lines[6:9] == ["", lines[7], "(An oracle is no method: it chooses the best leaf by the HR image.)"]
    assert lines[7].split() == ["oracle", "per", "pixel", "27.00", "+7.00", "0.5000"]
    tex = (tmp_path / "table.tex").read_text().splitlines()
    assert tex.index(r"fusion & 25.00 & 0.5000 \\") + 1 == [n for n, line in enumerate(tex) if line == r"\midrule"][1]
    assert (tmp_path / "table.md").read_text().splitlines()[-1] == "| oracle per pixel | 27.00 | 0.5000 |"


def test_images_without_leaves_have_empty_cells(tmp_path):
    small = {name: {"psnr": 30.0, "ssim": 0.9} for name in ("bicubic", "leaf 1", "mean", "fusion")}
    large = {name: small[name] for name in ("bicubic", "fusion")}
    write(Report(4, report().pairs, {"d2csr": [large, small]}), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["leaf 1/psnr"] for row in rows] == ["", "30.0"]
    assert [row["fusion/psnr"] for row in rows] == ["30.0", "30.0"]
