"""The page of a report, from the scores and the pictures that were written."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from d2csr.colormap import VIRIDIS, css_gradient, inferno
from d2csr.errors import printable
from d2csr.evaluation.baselines import ORACLES
from d2csr.evaluation.panels import GAIN, panel_name
from d2csr.evaluation.report import Report
from d2csr.evaluation.tables import ORACLE_NOTE, PROTOCOLS_NOTE, SEEDS_NOTE, leaves_note
from d2csr.files import atomic_write
from d2csr.html_report.encoding import REPORT_BYTES
from d2csr.html_report.pictures import ERROR_LIMIT, folder_name, read_pictures
from d2csr.html_report.score_tables import image_scores, image_table, mean_table

REPORT_FOLDER = "report"

PACKAGES = ("jinja2", "matplotlib")
_OPEN_DETAILS = 12  # images; in a larger report leaves, errors and spectra are folded


def write_page(report: Report, folder: Path, *, settings: str = "", notes: Sequence[str] = ()) -> Path:
    """Write ``index.html`` beside the pictures of :func:`d2csr.html_report.write_pictures`, and return its path.

    It shows the settings of the evaluation, as YAML, and the notes below the title.
    """
    _remove_pictures_of_others(folder, len(report.pairs))
    pictures = [read_pictures(folder, index) for index in range(len(report.pairs))]
    page = (
        _environment()
        .get_template("index.html.j2")
        .render(
            report=report,
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            settings=settings,
            notes=notes,
            tables=[mean_table(report, protocol) for protocol in report.images],
            image_tables=[image_table(report, protocol) for protocol in report.images],
            images=[_image(report, index, one) for index, one in enumerate(pictures)],
            encodings=Counter(one["encoding"] for one in pictures if one),
            open_details=len(pictures) <= _OPEN_DETAILS,
            score_notes=list(_score_notes(report)),
            report_megabytes=REPORT_BYTES // 10**6,
            gain=GAIN,
            error_limit=ERROR_LIMIT,
            weight_gradient=css_gradient(VIRIDIS),
            error_gradient=css_gradient(inferno()),
        )
    )
    path = folder / "index.html"
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _score_notes(report: Report) -> Iterator[str]:
    checkpoints = len(report.about.get("checkpoints", ()))
    if len(report.images) > 1:
        yield PROTOCOLS_NOTE
    if report.seeds:
        yield SEEDS_NOTE
    if any(name in ORACLES for name in report.images[report.protocol][0]):
        yield ORACLE_NOTE
    if note := leaves_note(report):
        yield note
    if checkpoints > 1:
        yield f"Leaves and weights are shown for a single checkpoint only; this report compares {checkpoints}."


def _image(report: Report, index: int, pictures: dict[str, Any] | None) -> dict[str, Any]:
    pair = report.pairs[index]
    return {
        "index": index,
        "name": printable(panel_name(report.pairs, index)),
        "lr": printable(str(pair.lr)),
        "hr": printable(str(pair.hr)),
        "folder": folder_name(index),
        "pictures": pictures,
        "tables": [image_scores(report, protocol, index) for protocol in report.images],
        "psnr": {name: f"{scores['psnr']:.2f} dB" for name, scores in report.images[report.protocol][index].items()},
    }


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("d2csr.html_report"),
        autoescape=True,  # names of files and settings come from the user
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = lambda value: printable(str(value))
    environment.filters["fields"] = lambda entry, *names: [entry[name] for name in names]
    templates = files("d2csr.html_report") / "templates"
    style, script = (templates.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "report.js"))
    # The page allows this script alone, by its hash.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"style": style, "script": script, "script_hash": f"sha256-{digest}"}
    return environment


def _remove_pictures_of_others(folder: Path, count: int) -> None:
    """Remove pictures that a report of more images left in the folder."""
    for path in (folder / "images").glob("*"):
        if path.name.isdecimal() and int(path.name) >= count:
            shutil.rmtree(path, ignore_errors=True)
