"""The documentation site: built once with warnings as errors, and opened from disk in a browser."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import zlib
from pathlib import Path

import pytest

from markdown_pages import DOCS, ROOT

pytestmark = pytest.mark.slow

# What `make docs` passes to sphinx-build, beside the folders.
OPTIONS = ["-W", "--keep-going", "-n"]


@pytest.fixture(scope="module")
def site(executed_notebooks: Path, python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as ``make docs`` does, with the notebooks that the tests have executed."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [python, "-m", "sphinx", *OPTIONS, "-d", folder / "doctrees", DOCS, folder / "html"],
        env={**os.environ, "D2CSR_DOCS_NOTEBOOKS": str(executed_notebooks)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> list[Path]:
    """Return the pages of text; those of source code are left out."""
    return [page for page in sorted(site.rglob("*.html")) if "_modules" not in page.parts]


def test_make_docs_builds_with_these_options() -> None:
    printed = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"sphinx-build {' '.join(OPTIONS)} docs build/docs" in printed


def test_the_contents_name_every_page(site: Path) -> None:
    contents = (site / "index.html").read_text().split('class="sidebar-tree"')[1].split("</aside>")[0]
    linked = set(re.findall(r'href="([\w/-]+)\.html"', contents))
    sources = {path.stem for path in DOCS.glob("*.md")} | {
        f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    assert sources - {"index"} <= linked


def test_every_page_opens_from_disk_without_a_request_or_an_error(site: Path, pages: list[Path], browser) -> None:
    problems: list[str] = []
    for width, scheme in ((1440, "light"), (390, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab = context.new_page()
        tab.on("request", lambda request: problems.append(request.url) if not request.url.startswith("file:") else None)
        tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        for page in pages:
            tab.goto(page.as_uri(), wait_until="load")
            wider = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            if wider > 0:
                problems.append(f"{page.relative_to(site)} is {wider} pixels wider than a window of {width}")
            shown = tab.inner_text("article") if page.stem != "contributing" else ""  # which describes the marks
            if re.search(r"not run: |run by tests/", shown):
                problems.append(f"{page.relative_to(site)} shows a mark of the tests")
        context.close()
    assert len(pages) > 30
    assert problems == []


def test_equations_are_drawn(site: Path, browser) -> None:
    tab = browser.new_page()
    for name in ("method", "evaluation"):
        tab.goto((site / f"{name}.html").as_uri())
        sizes = tab.eval_on_selector_all(
            "div.equation > math",
            "nodes => nodes.map(node => [node.getBoundingClientRect().width, node.getBoundingClientRect().height])",
        )
        assert len(sizes) == (DOCS / f"{name}.md").read_text().count("\n$$\n") / 2
        assert all(width > 60 and height > 15 for width, height in sizes)
    tab.close()


def test_the_theme_follows_the_system(site: Path, browser) -> None:
    colours = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.goto((site / "index.html").as_uri())
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert light > 600
    assert dark < 150


def test_the_search_finds_a_word_from_disk(site: Path, browser) -> None:
    tab = browser.new_page()
    tab.goto((site / "search.html").as_uri() + "?q=margin_diff")
    tab.wait_for_selector("#search-results li a")
    assert "method" in " ".join(
        tab.eval_on_selector_all("#search-results li a", "nodes => nodes.map(node => node.href)")
    )
    tab.close()


def test_the_notebooks_are_shown_with_their_pictures(site: Path, pages: list[Path]) -> None:
    text = (site / "notebooks" / "01_quickstart.html").read_text()
    assert len(re.findall(r'<img [^>]*src="\.\./_images/\w+\.png"', text)) >= 3
    assert "leaf 22:" in text


def documented(site: Path) -> set[str]:
    """Return the names in the inventory of the site, which other projects link to."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(content).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines if " py:" in line}


PACKAGES = ("models", "metrics", "inference", "training", "callbacks", "evaluation", "checkpoints", "exporting")
INTERFACE = (
    *("d2csr.load_model", "d2csr.upscale", "d2csr.export", "d2csr.models.D2CSR", "d2csr.models.register_body"),
    *("d2csr.losses.divergence_loss", "d2csr.losses.DivergenceLoss", "d2csr.metrics.psnr", "d2csr.metrics.ssim"),
    *("d2csr.schedules.StepDecay", "d2csr.data.layouts.register_layout", "d2csr.data.datamodule.PairDataModule"),
    *("d2csr.loggers.WandbLogger", "d2csr.integrations.spandrel.install", "d2csr.metrics.iqa.load_metrics"),
)


def test_the_api_reference_has_each_public_name(site: Path) -> None:
    names = documented(site)
    assert set(INTERFACE) <= names
    for package in PACKAGES:
        for name in importlib.import_module(f"d2csr.{package}").__all__:
            home = getattr(importlib.import_module(f"d2csr.{package}"), name)
            own = f"{getattr(home, '__module__', '')}.{name}"
            if callable(home):
                assert {f"d2csr.{package}.{name}", f"d2csr.{name}", own} & names, f"d2csr.{package}.{name}"
