"""``d2csr-eval``: scores and images of checkpoints, and of other methods' images, on pairs with ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from d2csr.checks import flag, require_packages
from d2csr.commands.base import command, inference_trainer, node_object, plain
from d2csr.commands.heavy_imports import import_heavy

if TYPE_CHECKING:
    from d2csr.evaluation.report import ImageResult


@command(
    "eval",
    lists=("save", "protocols", "iqa", "panels.at", "ckpt", "sr"),
    paths=("ckpt", "sr", "data.test_list", "data.root"),
)
def main(cfg: DictConfig) -> None:
    """Load the checkpoints, find the test pairs, evaluate, and print the table."""
    import_heavy("d2csr.evaluation")
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from d2csr import html_report
    from d2csr.callbacks.progress_bar import EvaluationProgressBar
    from d2csr.callbacks.rank_failure import RankFailure
    from d2csr.commands.compared_methods import find_methods
    from d2csr.distributed import is_rank_zero
    from d2csr.environment import environment, environment_lines
    from d2csr.evaluation import Scoring, evaluate
    from d2csr.evaluation.panels import Part
    from d2csr.evaluation.runs import describe, seed_groups, selection_notes
    from d2csr.evaluation.tables import text
    from d2csr.inference import Inference
    from d2csr.log_file import log_to_file, print_and_log

    if with_report := flag("report", cfg.report):
        require_packages("report:", html_report.PACKAGES, "report")
    if is_rank_zero():
        log_to_file("\n".join(environment_lines(environment())))
    output = Path(HydraConfig.get().runtime.output_dir)
    part, inference = node_object(cfg, "panels", Part), node_object(cfg, "inference", Inference)
    iqa = cfg.iqa if OmegaConf.is_list(cfg.iqa) else [cfg.iqa]
    scoring = Scoring(plain(cfg.protocols), cfg.compare, cfg.eight_bit, iqa, inference)
    methods = find_methods(cfg)
    datamodule = methods.datamodule
    callbacks = [RankFailure(), *([EvaluationProgressBar()] if cfg.trainer.get("enable_progress_bar", True) else [])]
    trainer = inference_trainer(plain(cfg.trainer), callbacks=callbacks, default_root_dir=output)

    def write_pictures(result: ImageResult, folder: Path) -> None:
        html_report.write_pictures(result, folder / html_report.REPORT_FOLDER, len(datamodule.test_pairs))

    report = evaluate(
        methods.networks,
        datamodule,
        trainer,
        scoring,
        output=output,
        save=plain(cfg.save),
        part=part,
        sr=methods.sr,
        seeds=seed_groups(methods.files),
        about=describe(methods.files, methods.sr),
        on_result=write_pictures if with_report else None,
    )
    if trainer.is_global_zero:
        notes = selection_notes(methods.checkpoints.values(), datamodule.splits)
        written = [f"Written to {output}"]
        if with_report:
            yaml = OmegaConf.to_yaml(cfg, resolve=True)
            page = html_report.write_page(report, output / html_report.REPORT_FOLDER, settings=yaml, notes=notes)
            written.append(f"Report: {page}")
        print_and_log("\n\n".join([text(report), *notes, "\n".join(written)]))


if __name__ == "__main__":
    main()
