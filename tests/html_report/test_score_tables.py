from __future__ import annotations

from pathlib import Path

import pytest

from d2csr.data.lists import ImagePair
from d2csr.evaluation.report import Report, SeedGroup
from d2csr.html_report.score_tables import image_scores, image_table, mean_table

PAIRS = [ImagePair(Path(f"{name}.png"), Path(f"{name}.png"), "list") for name in "ab"]


def scores(**psnrs: float) -> dict[str, dict[str, float]]:
    return {
        name.replace("_", " "): {"psnr": value, "ssim": value / 100, "lpips": 1 / value}
        for name, value in psnrs.items()
    }


@pytest.fixture
def report() -> Report:
    rows = [
        scores(bicubic=25.0, leaf_11=26.0, leaf_12=28.0, mean=27.0, fusion=27.5, oracle_per_pixel=30.0),
        scores(bicubic=27.0, leaf_11=30.0, leaf_12=29.0, mean=29.5, fusion=29.5, oracle_per_pixel=32.0),
    ]
    return Report(2, PAIRS, {"cdc": rows}, metrics={"lpips": {"lower_is_better": True}})


def test_the_means_are_those_of_the_printed_table(report: Report) -> None:
    table = mean_table(report, "cdc")
    assert (table["protocol"], table["scored_on"]) == ("cdc", "float, not clamped")
    assert list(table["header"]) == ["PSNR (dB)", "over bicubic", "SSIM", "LPIPS ↓"]
    texts = {row["label"]: [cell.text for cell in row["cells"]] for row in table["rows"]}
    assert texts["bicubic"][:2] == ["26.00", "+0.00"]
    assert texts["fusion"] == ["28.50", "+2.50", "0.2850", "0.0351"]
    assert [row["kind"] for row in table["rows"]] == [*5 * ["method"], "oracle"]


def test_the_best_method_of_each_metric_is_marked_and_never_the_oracle(report: Report) -> None:
    best = {row["label"]: [cell.best for cell in row["cells"]] for row in mean_table(report, "cdc")["rows"]}
    marked = [True, False, True, True]  # 28.50 dB, 0.2850 and 0.0351: two methods look equally good
    assert (best["leaf 12"], best["fusion"]) == (marked, marked)
    assert not any(any(cells) for name, cells in best.items() if name not in ("leaf 12", "fusion"))
    alone = {row["label"]: [cell.best for cell in row["cells"]] for row in image_scores(report, "cdc", 1)["rows"]}
    assert alone["leaf 11"] == [True, False, True, True]


def test_the_table_of_all_images_has_no_leaves_and_can_be_sorted(report: Report) -> None:
    table = image_table(report, "cdc")
    assert list(table["methods"]) == [("bicubic", 3), ("fusion", 4)]
    assert list(table["header"]) == ["PSNR (dB)", "SSIM", "LPIPS ↓", "PSNR (dB)", "over bicubic", "SSIM", "LPIPS ↓"]
    assert [cell.text for cell in table["rows"][0]][3:5] == ["27.50", "+2.50"]
    assert [float(cell.sort) for cell in table["rows"][1]][:4] == [27.0, 0.27, 1 / 27, 29.5]


def test_scores_that_are_no_numbers_have_nothing_to_sort_by() -> None:
    rows = [scores(bicubic=25.0, fusion=float("nan")), scores(bicubic=25.0, fusion=float("inf"))]
    table = image_table(Report(2, PAIRS, {"cdc": rows}), "cdc")
    assert [row[3].sort for row in table["rows"]] == ["", "inf"]


def test_runs_of_several_seeds_have_their_mean_and_standard_deviation_at_the_end() -> None:
    rows = [scores(bicubic=25.0, a=27.0, b=29.0, other=30.0) for _ in PAIRS]
    table = mean_table(Report(2, PAIRS, {"d2csr": rows}, "a", [SeedGroup(("a", "b"), (0, 1))]), "d2csr")
    assert [row["label"] for row in table["rows"]] == ["bicubic", "a", "b", "other", "a, b (2 seeds)"]
    seeds = table["rows"][4]
    assert (seeds["kind"], seeds["cells"][0].text, seeds["cells"][1].text) == ("seeds", "28.00 ± 1.41", "+3.00")
