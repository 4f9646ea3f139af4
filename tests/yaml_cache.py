"""Cache of parsed YAML: the tests compose the same shipped files again and again."""

from __future__ import annotations

import copy
from typing import IO, Any

import yaml


def keep_parsed_yaml() -> None:
    """Let omegaconf parse each text once in this process. Texts that cannot be parsed are not kept."""
    parse, kept = yaml.load, {}

    def load(stream: str | IO[str], Loader: Any) -> Any:  # noqa: N803
        if Loader.__name__ != "OmegaConfLoader" or isinstance(stream, str):
            return parse(stream, Loader)
        start, text = stream.tell(), stream.read()
        if text not in kept:
            stream.seek(start)
            kept[text] = parse(stream, Loader)
        return copy.deepcopy(kept[text])

    yaml.load = load
