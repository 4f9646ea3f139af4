"""``d2csr-figure``: a figure for a paper, with crops of a test image by several methods."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from d2csr.checks import flag, one_of, require_packages
from d2csr.commands.base import command, inference_trainer, node_object, plain, require_new, texts
from d2csr.commands.heavy_imports import import_heavy
from d2csr.errors import ConfigError, printable
from d2csr.files import user_path


@command(
    "figure",
    lists=("ckpt", "sr", "methods"),
    paths=("ckpt", "sr", "output", "data.test_list", "data.root"),
)
def main(cfg: DictConfig) -> None:
    """Evaluate one image by all methods, draw the figure, and print its files."""
    import_heavy("d2csr.evaluation.single_image")
    from d2csr.commands.compared_methods import find_methods
    from d2csr.evaluation import Scoring
    from d2csr.evaluation.single_image import evaluate_image
    from d2csr.figures import Style, figure_content, named_crops, write_figure
    from d2csr.figures.figure_content import SCORES
    from d2csr.inference import Inference

    require_packages("A figure", ["matplotlib"], "report")
    paths = _paths(str(cfg.output))
    require_new(paths, cfg.overwrite)
    crops = named_crops(plain(cfg.crops))
    style = Style(cfg.width_mm, cfg.dpi, cfg.font_pt, cfg.columns, cfg.overview)
    scores = one_of("scores", cfg.scores, SCORES)
    chosen = texts(cfg, "methods", "a name")
    labels = plain(cfg.labels) or {}
    if not isinstance(labels, dict):
        raise ConfigError(f"labels: must be {{method: label, …}}, got {labels!r}.")
    inference = node_object(cfg, "inference", Inference)
    methods = find_methods(cfg)
    eight_bit = flag("eight_bit", cfg.eight_bit) or bool(methods.sr)
    scoring = Scoring([cfg.protocol], "auto" if len(methods.networks) == 1 else False, eight_bit, inference=inference)
    trainer = inference_trainer(plain(cfg.trainer), enable_progress_bar=False)
    result = evaluate_image(methods.networks, methods.datamodule, trainer, str(cfg.image), scoring, methods.sr)
    content = figure_content(
        result,
        crops,
        methods=chosen,
        labels={str(name): str(label) for name, label in labels.items()},
        scores=scores,
        protocol=cfg.protocol,
        eight_bit=eight_bit,
    )
    width, height = write_figure(content, style, paths)
    for path in paths:
        print(printable(f"{path}: {width:g} × {height:.1f} mm"))


def _paths(output: str) -> list[Path]:
    """Return the files to write: both formats, or that of the suffix."""
    from d2csr.figures.comparison_figure import FORMATS

    path = user_path(output)
    return [path] if path.suffix.lower() in FORMATS else [path.with_name(path.name + suffix) for suffix in FORMATS]


if __name__ == "__main__":
    main()
