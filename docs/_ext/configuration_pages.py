"""Reference of the configuration, generated from the comments and values of conf/*.yaml.

Each key of a file becomes a row: its name on the command line, its value in the file, and its comment. A comment stands
on the line of its key, and continues on the next lines if they begin with ``#`` and at least two spaces. Other comments
describe the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CONF = Path(__file__).resolve().parents[2] / "conf"
PLACE = "<!-- every key of conf/*.yaml -->"
LEFT_OUT = ("hydra.help", "hydra.job.name")  # the text of --help


@dataclass(frozen=True)
class Key:
    """A key with its name on the command line, its value as in the file (empty for a node), and its comment."""

    name: str
    value: str
    comment: str


@dataclass(frozen=True)
class ConfigFile:
    """A file of conf/: its path there, the comments that describe it, its defaults list and its keys."""

    path: Path
    comments: list[str] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)

    @property
    def group(self) -> str:
        """The config group, such as ``model/scheduler``; empty for the file of a command."""
        return "" if self.path.parent == Path() else self.path.parent.as_posix()


def read_file(path: Path, conf: Path = CONF) -> ConfigFile:
    """Read one YAML file, with its comments."""
    text = path.read_text()
    lines = text.splitlines()
    comments = Comments(lines)
    package = re.search(r"^# @package (\S+)$", text, re.MULTILINE)
    relative = path.relative_to(conf)
    prefix = "" if relative.parent == Path() else ".".join(relative.parent.parts) + "."
    if package:
        prefix = "" if package[1] == "_global_" else package[1] + "."
    file = ConfigFile(relative)
    root = yaml.compose(text)
    for name, value, line in walk(root, prefix) if isinstance(root, yaml.MappingNode) else ():
        if name == prefix + "defaults":
            file.defaults.extend(defaults_of(text, value))
            comments.take(line)
        elif not name.startswith(LEFT_OUT):
            is_node = isinstance(value, yaml.MappingNode) and value.value
            shown = "" if is_node else text[value.start_mark.index : value.end_mark.index]
            comment = comments.take(line)
            if shown or comment:
                file.keys.append(Key(name, shown, comment))
    file.comments.extend(comments.others())
    return file


def walk(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, Any, int]]:
    """Yield name, value node and line of each key, nodes before their keys."""
    for key, value in node.value:
        name = prefix + key.value
        yield name, value, key.start_mark.line
        if isinstance(value, yaml.MappingNode):
            yield from walk(value, name + ".")


def defaults_of(text: str, value: yaml.Node) -> list[str]:
    """Return the entries of a defaults list, as in ``data: realsr``, without ``_self_``."""
    entries = [text[entry.start_mark.index : entry.end_mark.index].strip() for entry in value.value]
    return [entry.partition(" #")[0] for entry in entries if entry != "_self_"]


class Comments:
    """Comments of a YAML file by line; those inside of a block of text (``|``) are text."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.texts: dict[int, str] = {}
        block = -1  # indentation of the key whose block of text this line may belong to
        for number, line in enumerate(lines):
            indent = len(line) - len(line.lstrip())
            if block >= 0 and (not line.strip() or indent > block):
                continue
            block = indent if line.endswith(": |") else -1
            _, comment = split_comment(line)
            if comment is not None and not comment.startswith((" @package", " d2csr-train +experiment=")):
                self.texts[number] = comment
        self.whole = {number for number in self.texts if lines[number].lstrip().startswith("#")}

    def take(self, number: int) -> str:
        """Return and remove the comment of the key on a line, with the lines that continue it."""
        parts = [self.texts.pop(number, "")]
        while parts[0] and number + 1 in self.whole and self.texts.get(number + 1, "").startswith("  "):
            number += 1
            parts.append(self.texts.pop(number))
        return " ".join(part.strip() for part in parts).strip()

    def others(self) -> list[str]:
        """Return the comments that no key has taken, those on neighbouring lines together."""
        texts: list[str] = []
        before = -2
        for number, text in self.texts.items():
            if number == before + 1:
                texts[-1] += " " + text.strip()
            else:
                texts.append(text.strip())
            before = number
        return texts


def split_comment(line: str) -> tuple[str, str | None]:
    """Divide a line at the ``#`` of its comment; the comment is None if there is none."""
    quote = ""
    for index, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and not line[:index].rstrip().endswith(tuple("abcdefghijklmnopqrstuvwxyz")):
            quote = char
        elif char == "#" and (index == 0 or line[index - 1] == " "):
            return line[:index], line[index + 1 :]
    return line, None


def files(conf: Path = CONF) -> list[ConfigFile]:
    """Read all files: commands first, then each group."""
    read = [read_file(path, conf) for path in sorted(conf.rglob("*.yaml"))]
    return sorted(read, key=lambda file: (file.group != "", file.group, file.path.stem))


def markdown(conf: Path = CONF) -> str:
    """Return the reference: a section for each command and each group, with a table for each file."""
    texts: list[str] = []
    group = None
    for file in files(conf):
        if file.group != group:
            group = file.group
            texts.append(f"## Group `{group}`" if group else "## Commands")
        name = f"{file.group}={file.path.stem}" if group else f"d2csr-{file.path.stem}"
        if group.partition("/")[0] == "experiment":
            name = "+experiment=" + f"{group}/{file.path.stem}".partition("/")[2]
        texts.append(f"### `{name}`")
        texts.extend(prose(comment) for comment in file.comments)
        if file.defaults:
            texts.append("Defaults list: " + ", ".join(f"`{entry}`" for entry in file.defaults) + ".")
        if file.keys:
            rows = [f"| `{key.name}` | {code(key.value)} | {prose(key.comment)} |" for key in file.keys]
            texts.append("\n".join(["| key | value | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(texts) + "\n"


def code(value: str) -> str:
    """Return a value as code in a table cell; lists over several lines become one line."""
    return f"`{' '.join(value.split())}`".replace("|", r"\|") if value else ""


def prose(text: str) -> str:
    """Return a comment as Markdown: its characters as they are, with links to pages and addresses."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|#$^~])", r"\\\1", text)
    escaped = re.sub(r"(?<!\S)(--[a-z-]+)", r"`\1`", escaped)  # an option, not a dash
    linked = re.sub(r"docs/([a-z\\_-]+)\.md", lambda match: f"[{match[1]}]({match[1]}.md)", escaped)
    return re.sub(r"https://[^\s,;)]+", lambda match: f"<{match[0]}>".replace("\\", ""), linked)


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the reference into the page that has a place for it."""
    if PLACE in source[0]:
        source[0] = source[0].replace(PLACE, markdown())
        for path in CONF.rglob("*.yaml"):
            app.env.note_dependency(path)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the reader."""
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
