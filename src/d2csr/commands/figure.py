"""``d2csr-figure``: a figure for a paper, with crops of a test image by several methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from d2csr.commands.app import command, plain


@command(
    "figure",
    lists=("ckpt", "sr", "methods"),
    paths=("ckpt", "sr", "output", "data.test_list", "data.root"),
)
def main(cfg: DictConfig) -> None:
    """Evaluate one image by all methods, draw the figure, and print its files."""
    from hydra.utils import instantiate

    from d2csr.checks import flag, keys_below, one_of
    from d2csr.commands.compared_methods import find_methods
    from d2csr.errors import ConfigError, printable
    from d2csr.evaluation.single_image import evaluate_image
    from d2csr.figures import Style, figure_content, named_crops, require_matplotlib, write_figure
    from d2csr.figures.figure_content import SCORES
    from d2csr.inference import Inference
    from d2csr.metrics.protocols import protocol_named

    require_matplotlib()
    paths = _paths(str(cfg.output), flag("overwrite", cfg.overwrite))
    crops = named_crops(plain(cfg.crops))
    style = Style(cfg.width_mm, cfg.dpi, cfg.font_pt, cfg.columns, cfg.overview)
    scores = one_of("scores", cfg.scores, SCORES)
    chosen = _names("methods", plain(cfg.methods))
    labels = plain(cfg.labels) or {}
    if not isinstance(labels, dict):
        raise ConfigError(f"labels: must be {{method: label, …}}, got {labels!r}.")
    protocol = protocol_named(cfg.protocol)
    with keys_below("inference"):
        inference = Inference(**plain(cfg.inference))
    methods = find_methods(cfg)
    eight_bit = flag("eight_bit", cfg.eight_bit) or bool(methods.sr)
    trainer = instantiate(cfg.trainer, logger=False, enable_progress_bar=False, _convert_="all")
    result = evaluate_image(
        methods.networks,
        methods.datamodule,
        trainer,
        str(cfg.image),
        protocol=cfg.protocol,
        sr=methods.sr,
        inference=inference,
        compare="auto" if len(methods.networks) == 1 else False,
        eight_bit=eight_bit,
    )
    content = figure_content(
        result,
        crops,
        methods=chosen,
        labels={str(name): str(label) for name, label in labels.items()},
        scores=scores,
        protocol=cfg.protocol,
        scored_on="8-bit" if eight_bit else protocol.scored_on,
        eight_bit=eight_bit,
    )
    width, height = write_figure(content, style, paths)
    for path in paths:
        print(printable(f"{path}: {width:g} × {height:.1f} mm"))


def _paths(output: str, overwrite: bool) -> list[Path]:
    """Return the files to write: both formats, or that of the suffix."""
    from d2csr.errors import ConfigError
    from d2csr.figures.comparison_figure import FORMATS
    from d2csr.files import user_path

    path = user_path(output)
    paths = [path] if path.suffix.lower() in FORMATS else [path.with_name(path.name + suffix) for suffix in FORMATS]
    present = [str(one) for one in paths if one.exists()]
    if present and not overwrite:
        raise ConfigError(f"output: {', '.join(present)} exists; choose another name, or add overwrite=true.")
    return paths


def _names(key: str, value: Any) -> list[str]:
    from d2csr.errors import ConfigError

    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in values):
        raise ConfigError(f"{key}: must be a list of names, got {value!r}.")
    return [str(one) for one in values]


if __name__ == "__main__":
    main()
