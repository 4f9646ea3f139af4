"""The notebooks run from the first cell to the last, and are stored without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {
    "01_quickstart": 3,
    "02_divergence_and_convergence": 3,
    "03_your_own_data": 3,
    "04_your_own_body_and_loss": 1,
}  # and the number of their pictures


def test_each_notebook_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_a_page_without_outputs(name: str) -> None:
    """One title, then sections; the documentation shows the notebooks too."""
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert cell["metadata"] == {}
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert prose.startswith("# ")
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    assert not re.search(r"[\"' (](/(home|root|tmp|data|Users)/|[A-Z]:\\\\)", text)


@pytest.fixture
def execute(executed_notebooks: Path):
    """Return a function that returns what a notebook printed; its pictures are counted."""

    def run(name: str) -> str:
        notebook = nbformat.read(executed_notebooks / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert sum("image/png" in output.get("data", {}) for output in outputs) == NOTEBOOKS[name]
        return "".join(output.text for output in outputs if output.output_type == "stream")

    return run


@pytest.mark.slow
def test_the_quickstart_shows_the_leaves_above_bicubic(execute) -> None:
    printed = execute("01_quickstart")
    scores = dict(re.findall(r"^([\w ]+): +([\d.]+) dB", printed, re.MULTILINE))
    assert scores.keys() == {"leaf 11", "leaf 12", "leaf 21", "leaf 22", "mean", "fusion", "bicubic"}
    assert all(float(score) > float(scores["bicubic"]) for name, score in scores.items() if name != "bicubic")


@pytest.mark.slow
def test_a_large_divergence_weight_moves_the_leaves_apart(execute) -> None:
    """The equations are checked by the cells themselves."""
    rows = re.findall(r"^(none|official|large).*?(\d\.\d{3})", execute("02_divergence_and_convergence"), re.MULTILINE)
    distance = {name: float(value) for name, value in rows}
    assert distance["large"] > 1.05 * distance["none"]
    assert distance["official"] == pytest.approx(distance["none"], abs=0.002)  # as the text says


@pytest.mark.slow
def test_own_data_are_listed_trained_on_and_scored(execute, executed_notebooks: Path) -> None:
    printed = execute("03_your_own_data")
    assert "lists/pairs_x2_train.txt: 8 train pairs" in printed
    assert re.search(r"^fusion +\d+\.\d\d", printed, re.MULTILINE)
    assert str(executed_notebooks) not in printed
    (report,) = (executed_notebooks / "03_your_own_data").glob("d2csr-*/scores/report/index.html")
    assert "flower_0" in report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_own_body_and_loss_are_trained_and_loaded(execute, executed_notebooks: Path) -> None:
    printed = execute("04_your_own_body_and_loss")
    assert "{'name': 'depthwise', 'depth': 1, 'kernel': 5}" in printed
    assert "parameters without a gradient: []" in printed
    assert re.search(r"^fusion +\d+\.\d\d", printed, re.MULTILINE)
    (settings,) = (executed_notebooks / "04_your_own_body_and_loss").glob("d2csr-*/run/csv/hparams.yaml")
    assert "my_parts.AmplitudeLoss" in settings.read_text(encoding="utf-8")
