"""Files outside of docs/ on the site: links to them, executed notebooks, and pages that no contents list names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Links lead to these files on GitHub, and to these pages on the site.
PAGES = {
    "../README.md": "index.md",
    "../CONTRIBUTING.md": "repository/contributing.md",
    "../CHANGELOG.md": "repository/changelog.md",
    "../SECURITY.md": "repository/security.md",
    "../tests/golden/README.md": "repository/golden.md",
}
NOTEBOOK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+notebooks/(\w+)\.ipynb\)")
OTHERS = "<!-- all other pages -->"


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    executed = Path(os.environ.get("D2CSR_DOCS_NOTEBOOKS") or "", Path(docname).name + ".ipynb")
    if docname.startswith("notebooks/"):
        if executed.is_file():
            source[0] = executed.read_text()
        return
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")
    source[0] = NOTEBOOK.sub(r"{doc}`\1 <notebooks/\2>`", source[0])
    if OTHERS in source[0]:
        source[0] = source[0].replace(OTHERS, "\n".join(other_pages(source[0], Path(app.srcdir))))


def other_pages(contents: str, folder: Path) -> list[str]:
    """Return the names of the pages in a folder that the contents do not list."""
    listed = set(re.findall(r"^[\w/-]+$", contents, re.MULTILINE))
    return sorted(page.stem for page in folder.glob("*.md") if page.stem not in {*listed, "index"})


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the reader."""
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
