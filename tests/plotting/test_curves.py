"""The figure of training curves, against the rows of the log."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from d2csr.errors import ConfigError
from d2csr.plotting import draw_curves, write_figure
from d2csr.plotting.divergence_windows import divergence_windows
from d2csr.plotting.lines import MOST_POINTS, line_of
from d2csr.plotting.run_log import Series
from d2csr.plotting.styles import COLOURS, WINDOW, colours

LEAVES = ("11", "12", "21", "22")
SETTINGS = {
    "model": {
        "divergence": {"weight": 1.0, "after": -1, "period": 2, "active": 1, "decay_every": 9, "decay_factor": 0.5}
    }
}


def training(epochs: int = 5, shift: float = 0.0, psnr: float = 25.0) -> list[dict[str, Any]]:
    """Return rows of a training with ten steps an epoch: one every second step, and a validation after each epoch."""
    rows: list[dict[str, Any]] = []
    for step in range(1, 10 * epochs, 2):
        epoch = step // 10
        row = {"step": step, "epoch": epoch, "train/reconstruction": 1 / (step + 1), "train/fusion": 0.2 / (step + 1)}
        row |= {"train/divergence": 1e-6 * (step + 1) if epoch % 2 == 0 else 0.0, "train/lr": 1e-4 * 0.5**epoch}
        row |= {"train/distance": 0.02, "train/distance_same": 0.01, "train/distance_diff": 0.03}
        row |= {"train/entropy": 0.9 + shift, "train/memory_gb": 1.0, "train/samples_per_second": 9.0}
        rows.append(row)
        if step % 10 == 9:
            scores = {f"val/psnr_{leaf}": psnr + epoch - 0.1 * n for n, leaf in enumerate(LEAVES)}
            rows.append({"step": step, "epoch": epoch, "val/psnr": psnr + epoch + shift, "val/ssim": 0.8, **scores})
    return rows


def charts(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def drawn(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and values of the lines of a chart by their labels."""
    return {
        str(line.get_label()): (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }


LINES = [
    ("Losses", "reconstruction, sum over the leaves", "train/reconstruction"),
    ("Losses", "fusion", "train/fusion"),
    ("PSNR, validation", "fusion", "val/psnr"),
    ("PSNR, validation", "bicubic", "val/psnr_bicubic"),
    *(("PSNR, validation", f"leaf {leaf}", f"val/psnr_{leaf}") for leaf in LEAVES),
    ("SSIM, validation", "fusion", "val/ssim"),
    ("Distance of the leaves", "all pairs", "train/distance"),
    ("Distance of the leaves", "pairs with one parent", "train/distance_same"),
    ("Distance of the leaves", "other pairs", "train/distance_diff"),
    ("Entropy of the fusion weights", "entropy", "train/entropy"),
    ("Learning rate", "learning rate", "train/lr"),
]


def test_each_line_is_a_column_of_the_log(write_run) -> None:
    rows = [{**row, "val/psnr_bicubic": 24.5} if "val/psnr" in row else row for row in training()]
    titles = charts(draw_curves([write_run(rows)]))
    for title, label, column in LINES:
        steps, values = drawn(titles[title])[label]
        assert steps == [row["step"] for row in rows if column in row]
        np.testing.assert_allclose(values, [row[column] for row in rows if column in row], rtol=1e-12)
    assert {label for axes in titles.values() for label in drawn(axes)} == {label for _, label, _ in LINES} | {
        "divergence"
    }


def test_there_is_a_chart_for_what_is_logged_and_no_other(write_run) -> None:
    titles = charts(draw_curves([write_run(training())]))
    assert set(titles) == {
        *("Losses", "Divergence loss times its weight", "PSNR, validation", "Distance of the leaves"),
        *("Entropy of the fusion weights", "SSIM, validation", "Learning rate"),
    }


def test_losses_are_logarithmic_and_the_zeros_of_the_divergence_loss_are_gaps(write_run) -> None:
    rows = training()
    titles = charts(draw_curves([write_run(rows)]))
    scales = {title: axes.get_yscale() for title, axes in titles.items()}
    assert [scales[name] for name in ("Losses", "Divergence loss times its weight", "PSNR, validation")] == [
        *("log", "log", "linear")
    ]
    _, values = drawn(titles["Divergence loss times its weight"])["divergence"]
    expected = [row["train/divergence"] or math.nan for row in rows if "train/divergence" in row]
    np.testing.assert_allclose(values, expected)


def test_a_loss_below_zero_is_drawn_on_a_linear_axis(write_run) -> None:
    axes = charts(draw_curves([write_run([{"step": s, "train/fusion": 1.0 - s} for s in range(4)])]))["Losses"]
    assert axes.get_yscale() == "linear"
    assert drawn(axes)["fusion"][1] == [1, 0, -1, -2]


def shading(axes: Axes) -> list[tuple[float, float]]:
    """Return left and right edge of each shaded part of a chart."""
    bands = [c for c in axes.collections if to_hex(c.get_facecolor()[0]) == WINDOW.lower()]
    extents = [path.get_extents() for band in bands for path in band.get_paths()]
    return [(extent.x0, extent.x1) for extent in extents]


def test_the_divergence_windows_are_shaded_in_each_chart(write_run) -> None:
    log = write_run(training(), SETTINGS)
    figure = draw_curves([log])
    assert divergence_windows(log) == [(0, 10), (20, 30), (40, 50)]
    for axes in charts(figure).values():
        assert shading(axes) == [(-0.5, 9.5), (19.5, 29.5), (39.5, 49.5)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["divergence loss active"]


def test_the_upper_axis_counts_epochs(write_run) -> None:
    figure = draw_curves([write_run(training())])
    figure.draw_without_rendering()
    steps = figure.axes[0]
    (epochs,) = steps.child_axes
    assert epochs.get_xlim() == pytest.approx([step / 10 for step in steps.get_xlim()])


def test_bad_values_are_marked_and_leave_a_gap(write_run) -> None:
    values = [1.0, math.nan, 3.0, math.inf, 5.0]
    axes = charts(draw_curves([write_run([{"step": s, "train/loss": v} for s, v in enumerate(values)])]))["train/loss"]
    np.testing.assert_equal(drawn(axes)["train/loss"][1], [1, math.nan, 3, math.nan, 5])
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[1, 3]]


def test_a_single_point_is_visible(write_run) -> None:
    axes = charts(draw_curves([write_run([{"step": 0, "epoch": 0, "val/psnr": 20.0}])]))["PSNR, validation"]
    assert [(list(line.get_xdata()), line.get_marker()) for line in axes.lines][1:] == [([0], "o")]


def test_runs_have_a_colour_each_and_their_names_in_the_legend(write_run) -> None:
    logs = [write_run(training(), SETTINGS, "one"), write_run(training(shift=0.05), SETTINGS, "two")]
    figure = draw_curves(logs)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "divergence loss active"]
    assert [line.get_color() for line in legend.get_lines()] == list(COLOURS[:2])
    lines = charts(figure)["Entropy of the fusion weights"].lines
    assert [(line.get_color(), line.get_ydata()[0]) for line in lines if len(line.get_xdata())][::2] == [
        (COLOURS[0], pytest.approx(0.9)),
        (COLOURS[1], pytest.approx(0.95)),
    ]
    texts = [text.get_text() for text in charts(figure)["PSNR, validation"].get_legend().get_texts()]
    assert texts == ["fusion", "range of the leaves"]


def test_of_runs_with_different_windows_those_of_one_are_shaded_and_the_legend_says_of_which(write_run) -> None:
    never = {"model": {"divergence": {**SETTINGS["model"]["divergence"], "weight": 0.0}}}
    longer = {"model": {"divergence": {**SETTINGS["model"]["divergence"], "active": 2}}}
    logs = [write_run(training(), never, "a"), write_run(training(), SETTINGS, "b"), write_run(training(), longer, "c")]
    figure = draw_curves(logs)
    assert figure.legends[0].get_texts()[-1].get_text() == "divergence loss active (b)"
    assert shading(figure.axes[0]) == [(-0.5, 9.5), (19.5, 29.5), (39.5, 49.5)]


def test_of_runs_of_one_schedule_the_windows_of_the_longest_are_shaded(write_run) -> None:
    figure = draw_curves([write_run(training(2), SETTINGS, "short"), write_run(training(5), SETTINGS, "long")])
    assert figure.legends[0].get_texts()[-1].get_text() == "divergence loss active"
    assert shading(figure.axes[0]) == [(-0.5, 9.5), (19.5, 29.5), (39.5, 49.5)]


def test_many_runs_have_different_colours_and_more_are_refused(write_run) -> None:
    assert len(set(colours(24))) == 24
    log = write_run(training())
    for logs in ([], [log] * 25):
        with pytest.raises(ConfigError, match=f"must name 1 to 24 runs, got {len(logs)}"):
            draw_curves(logs)


def test_a_long_log_is_drawn_by_the_means_and_ranges_of_groups() -> None:
    values = np.random.default_rng(0).normal(size=MOST_POINTS * 3 - 1)
    values[0] = math.nan
    line = line_of(Series(np.arange(len(values), dtype=float), values))
    groups = np.split(values, range(3, len(values), 3))
    assert (len(line.mean), line.rows) == (MOST_POINTS, 3)
    np.testing.assert_allclose(line.mean, [np.nanmean(group) for group in groups])
    np.testing.assert_allclose(line.low, [np.nanmin(group) for group in groups])
    np.testing.assert_allclose(line.high, [np.nanmax(group) for group in groups])
    np.testing.assert_allclose(line.steps, [*range(1, len(values) - 2, 3), len(values) - 1.5])
    assert line.bad.tolist() == [0]


def test_names_are_text_and_not_mathematics(write_run) -> None:
    rows = [{"step": s, "val/psnr": 1.0, "_a$^$b$": 2.0, "x" * 300: 3.0, "\x1b[31m": 4.0} for s in range(3)]
    figure = draw_curves([write_run(rows, name="$x_{$"), write_run(rows, name="_hidden")])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [r"\$x_{\$", "\u200b_hidden"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "\\x1b[31m" in titles
    assert max(map(len, titles)) <= 60
    figure.draw_without_rendering()


@pytest.mark.slow
def test_png_svg_and_pdf_are_written_and_the_same_log_gives_the_same_file(write_run, tmp_path) -> None:
    log = write_run(training(), SETTINGS)
    for suffix in ("png", "svg", "pdf"):
        for name in ("a", "b"):
            write_figure(draw_curves([log]), tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1500
        assert len(image.convert("RGB").getcolors(10**6)) > 100
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ConfigError, match=r"must be one of \.png, \.svg, \.pdf, got '\.jpg'"):
        write_figure(draw_curves([log]), tmp_path / "a.jpg")


@pytest.mark.slow
def test_settings_of_matplotlib_neither_matter_nor_change(write_run, tmp_path) -> None:
    log = write_run(training())
    write_figure(draw_curves([log]), tmp_path / "a.svg")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "svg.hashsalt": "x", "font.size": 30}):
        before = dict(matplotlib.rcParams)
        write_figure(draw_curves([log]), tmp_path / "b.svg")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_columns_beyond_the_limit_are_named(write_run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        figure = draw_curves([write_run([{"step": 1, **{f"mine/{letter}": 1.0 for letter in "abcdefghij"}}])])
    assert len(figure.axes) == 8
    assert "2 more columns are not drawn: mine/i, mine/j" in caplog.text
