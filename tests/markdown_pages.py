"""Markdown pages of the repository, as a reader of GitHub sees them: headings, links and code blocks."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "tests/golden/README.md")
    ),
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("api/*.md")),
]

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*) -->\n)?^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
_MARK = re.compile(r"not run: .{10,}|run by tests/[\w/]+\.py")


@dataclass(frozen=True)
class Block:
    """A code block. ``mark`` is the comment before it, which no reader sees: why no test of the pages runs it."""

    language: str
    text: str
    mark: str

    def commands(self) -> list[list[str]]:
        """Return the command lines as words, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(text: str) -> list[Block]:
    """Return the code blocks of a page."""
    return [
        Block(match["language"], textwrap.dedent(match["text"]), match["mark"] or "") for match in _BLOCK.finditer(text)
    ]


def is_mark(mark: str) -> bool:
    """Return whether a comment is a valid mark: a reason, or the file of another test."""
    return _MARK.fullmatch(mark) is not None


def without_code(text: str) -> str:
    """Return a page without its code blocks and spans."""
    return re.sub(r"(`+)[^`]+?\1", "", _BLOCK.sub("", text))


def links(page: Path) -> list[str]:
    """Return the targets of all links and images of a page, in the order of the page."""
    return re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", without_code(page.read_text()))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+?)\s*$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in plain]
    seen: Counter[str] = Counter()
    found = set()
    for slug in slugs:
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found
