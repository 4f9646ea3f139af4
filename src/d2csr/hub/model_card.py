"""Model cards: what a model was trained on, its scores, its limits and how to load it, in the hub's form.

A card is Markdown with YAML front matter (https://huggingface.co/docs/hub/model-cards). The hub reads licence, tags and
scores (``model-index``) from the front matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import yaml

from d2csr.errors import printable
from d2csr.files import atomic_write

_TAGS = ("super-resolution", "image-super-resolution", "real-world-super-resolution", "d2c-sr", "arxiv:2103.14373")
_WHOLE_IMAGE = "Each output pixel depends on the whole image. Tiles of an image give another result than the image."
_LOCAL = "Each output pixel depends on its surroundings. Tiles that overlap too little give another result."
_SPANDREL = "chaiNNer and ComfyUI load `model.safetensors` by spandrel, after `d2csr.integrations.spandrel.install()`."
_MAX_SIDE = 1600  # pixels of a picture
_METRICS = {"psnr": ("PSNR", "dB", 2), "ssim": ("SSIM", "", 4)}


@dataclass(frozen=True)
class Scores:
    """Mean scores of an evaluation by one protocol."""

    protocol: str
    scored_on: str  # the values of the images that were scored, in words
    images: int
    methods: Mapping[str, Mapping[str, float]]  # by method, the model itself last: psnr and ssim


@dataclass(frozen=True)
class CardFacts:
    """The content of a card; what is unknown is empty, and the card asks to fill it in."""

    settings: Mapping[str, Any]  # of the network
    parameters: int
    leaves: int
    whole_image: bool  # whether an output pixel depends on the whole image
    for_spandrel: bool  # whether spandrel can load the weights
    training: Mapping[str, str] = field(default_factory=dict)
    dataset: str | None = None  # of the evaluation
    scores: Sequence[Scores] = ()
    pictures: Sequence[Path] = ()  # PNG files, copied to the folder "images" beside the card


def write_card(path: Path, facts: CardFacts, about: Mapping[str, str], *, repo: str | None = None) -> None:
    """Write a model card, ``README.md``, and the pictures beside it.

    ``about`` holds some of ``title``, ``author``, ``license`` (an identifier of the hub, such as ``cc-by-4.0``);
    ``repo`` is ``user/name``, for the commands of the card.

    Raises:
        OSError: a file cannot be written.
    """
    text = card_text(facts, about, repo=repo)
    for picture in facts.pictures:
        _copy_picture(picture, path.parent / "images" / picture.name)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def card_text(facts: CardFacts, about: Mapping[str, str], *, repo: str | None = None) -> str:
    """Return the text of a model card; the arguments are those of :func:`write_card`."""
    settings = facts.settings
    title = about.get("title") or default_title(settings)
    template = Template(files(__package__).joinpath("model_card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        front_matter=_front_matter(facts, about, title),
        title=_one_line(title),
        scale=settings["scale"],
        summary=_summary(facts),
        network=_network(settings),
        parameters=f"{facts.parameters:,}",
        author=_one_line(about.get("author") or "FILL IN"),
        license=_one_line(about.get("license") or "FILL IN, and set `license` at the top of this file"),
        repo=_one_line(repo or "USER/NAME"),
        other_programs=_SPANDREL if facts.for_spandrel else "",
        training=_training(facts),
        evaluation=_evaluation(facts),
        pictures=_pictures(facts),
        locality=_WHOLE_IMAGE if facts.whole_image else _LOCAL,
    )
    return printable(text)


def default_title(settings: Mapping[str, Any]) -> str:
    """Return the title of a network with these settings, if its author gives none."""
    if settings.get("architecture", "d2csr") == "d2csr":
        return f"D2C-SR ×{settings['scale']}"
    kind = "Single path" if settings["paths"] == 1 else f"Ensemble of {settings['paths']} paths"
    return f"{kind}, {_one_line(settings['body']['name'])}, ×{settings['scale']}"


def _summary(facts: CardFacts) -> str:
    task = f"Real-world image super-resolution, ×{facts.settings['scale']},"
    paper = "[Li et al., ECCV 2022](https://arxiv.org/abs/2103.14373)"
    if facts.settings.get("architecture", "d2csr") == "d2csr":
        return (
            f"{task} by D2C-SR ({paper}). A\ndivergence network predicts {facts.leaves} images from one LR photograph, "
            "and a convergence network weighs them pixel by pixel\nand sums them to one."
        )
    network = "a network with one path" if facts.leaves == 1 else f"the mean of {facts.leaves} independent networks"
    return f"{task} by {network}: a baseline of D2C-SR ({paper})."


def _network(settings: Mapping[str, Any]) -> str:
    form = f"tree {settings['branching']}" if "branching" in settings else f"{settings['paths']} paths"
    values = ", ".join(f"{name} {value}" for name, value in settings["body"].items() if name != "name")
    body = f"body `{_one_line(settings['body']['name'])}`{f' ({_one_line(values)})' if values else ''}"
    return f"{settings['features']} features, {form}, {body}"


def _front_matter(facts: CardFacts, about: Mapping[str, str], title: str) -> str:
    licence = about.get("license")
    content: dict[str, Any] = {"license": _one_line(licence)} if licence else {}
    content |= {"pipeline_tag": "image-to-image", "library_name": "d2csr", "tags": list(_TAGS)}
    if facts.scores:
        results = [_result(scores, facts.dataset) for scores in facts.scores]
        content |= {"metrics": list(_METRICS), "model-index": [{"name": _one_line(title), "results": results}]}
    hint = "" if licence else "# license: FILL IN, such as apache-2.0 or cc-by-4.0\n"
    return hint + yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip()


def _result(scores: Scores, dataset: str | None) -> dict[str, Any]:
    own = list(scores.methods.values())[-1]
    return {
        "task": {"type": "image-to-image", "name": "Image super-resolution"},
        "dataset": {"name": _one_line(dataset or "FILL IN"), "type": _identifier(dataset or "unknown")},
        "metrics": [
            {"type": key, "name": _one_line(f"{name}, protocol {scores.protocol}"), "value": round(own[key], digits)}
            for key, (name, _, digits) in _METRICS.items()
            if key in own
        ],
    }


def _training(facts: CardFacts) -> str:
    if not facts.training:
        return "FILL IN: the training data, and how the network was trained. The file does not tell."
    return "\n".join(["| | |", "| --- | --- |", *(f"| {_cell(k)} | {_cell(v)} |" for k, v in facts.training.items())])


def _evaluation(facts: CardFacts) -> str:
    if not facts.scores:
        return "FILL IN: scores of `d2csr-eval`, with the data set and the protocol.\n"
    parts = [f"Test images: {_one_line(facts.dataset or 'FILL IN')}. Computed by `d2csr-eval`.\n"]
    for scores in facts.scores:
        units = [f"{name}{f' ({unit})' if unit else ''}" for name, unit, _ in _METRICS.values()]
        parts += [
            f"Protocol `{_one_line(scores.protocol)}` (values: {_one_line(scores.scored_on)}), mean over "
            f"{scores.images:,} images:\n",
            f"| | {' | '.join(units)} |",
            f"| --- | {' | '.join('---:' for _ in units)} |",
        ]
        for method, values in scores.methods.items():
            numbers = [f"{values[key]:.{d}f}" if key in values else "" for key, (_, _, d) in _METRICS.items()]
            parts.append(f"| {_cell(method)} | {' | '.join(numbers)} |")
        parts.append("")
    return "\n".join(parts)


def _pictures(facts: CardFacts) -> str:
    lines = [f"![{_cell(path.stem)}: LR, HR, and the results](images/{quote(path.name)})\n" for path in facts.pictures]
    return "\n".join(["", *lines]) if lines else ""


def _copy_picture(source: Path, target: Path) -> None:
    """Copy a PNG file, no larger than a card shows it."""
    from PIL import Image

    with Image.open(source, formats=["PNG"]) as image, atomic_write(target) as partial:
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
        image.save(partial, format="PNG", optimize=True)


def _one_line(text: str) -> str:
    return printable(" ".join(str(text).split()))


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _identifier(text: str) -> str:
    """Return a name in the form of an identifier: lower case, digits and hyphens."""
    return "-".join("".join(char if char.isascii() and char.isalnum() else " " for char in text.lower()).split())
