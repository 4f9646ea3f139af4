"""Links between the pages, as GitHub resolves them; the build of the site checks them once more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from markdown_pages import DOCS, PAGES, ROOT, anchors, links


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        if "://" not in link and not link.startswith("mailto:"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_tests_that_the_page_on_differences_names_exist() -> None:
    rows = re.findall(r"`(test_\w+\.py)`: `(test_\w+)` \|", (DOCS / "differences.md").read_text())
    assert len(rows) >= 10
    for file, test in rows:
        assert any(f"def {test}(" in path.read_text() for path in (ROOT / "tests").rglob(file)), (file, test)


def test_a_heading_has_the_anchor_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# What's `new`, in 1.0?\n\n## A [link](x.md)\n\n## Twice\n\n## Twice\n\n```bash\n# no heading\n```\n"
    )
    assert anchors(page) == {"whats-new-in-10", "a-link", "twice", "twice-1"}
