"""Composition of every experiment, and construction of its objects."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from d2csr.commands.base import config_dir
from d2csr.commands.targets import shipped_files
from d2csr.data.datamodule import PairDataModule
from d2csr.evaluation import Scoring
from d2csr.evaluation.panels import Part
from d2csr.inference import Inference, upscale
from d2csr.models import build_network
from d2csr.models.matching import reference_settings
from d2csr.renamed import RENAMED
from d2csr.schedules import DivergenceWeightSchedule, StepDecay
from d2csr.training import AlternatingTask, D2CSRTask
from d2csr.upscaling.pipeline import Options

SCALES = {
    "realsr_x2": 2,
    "realsr_x3": 3,
    "realsr_x4": 4,
    "drealsr_x2": 2,
    "drealsr_x3": 3,
    "drealsr_x4": 4,
    "d2crealsr_x8": 8,
}
BASELINES = {  # parameters of the published network, whose colour shifts are fixed; IMDN's tail is another
    "realsr_x4_edsr": 1_517_571,
    "realsr_x4_rcan": 15_592_355,
    "realsr_x4_imdn": None,
}
TREES = {f"{baseline}_d2c": baseline for baseline in BASELINES}
FAST = "realsr_x4_fast"
EXPERIMENTS = [*SCALES, *BASELINES, *TREES, FAST, "realsr_x4_divergent", "demo"]


def composed(*overrides: str, run_dir: str = "run") -> DictConfig:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
    cfg.hydra.runtime.output_dir = run_dir
    return cfg


def test_the_experiments_are_those_of_the_files() -> None:
    files = {path.stem for path in (Path(config_dir()) / "experiment").glob("*.yaml")}
    assert files == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_can_be_built(experiment: str, tmp_path: Path) -> None:
    cfg = composed(f"+experiment={experiment}", "trainer=cpu", run_dir=str(tmp_path))
    HydraConfig.instance().set_config(cfg)
    datamodule = instantiate(cfg.data, _convert_="all")
    task = instantiate(cfg.model, _convert_="all")
    trainer = instantiate(cfg.trainer, logger=False, enable_checkpointing=False, _convert_="all")
    loggers = [instantiate(logger, _convert_="all") for logger in cfg.logger.values()]
    assert isinstance(datamodule, PairDataModule)
    assert isinstance(task, D2CSRTask)
    assert task.network.scale == datamodule.scale == cfg.scale
    assert trainer.max_epochs == cfg.trainer.max_epochs
    assert len(loggers) == 1


# Values of training; the defaults in Python suit an evaluation. ``name`` is that of the data set.
OF_TRAINING = {"name", "batch_size", "patch_size", "num_workers"}


@pytest.mark.parametrize("node", ["data", "trainer"])
def test_a_default_in_python_is_that_of_the_configuration(node: str) -> None:
    cfg = OmegaConf.select(composed("data=pairs"), node)
    parameters = inspect.signature(get_object(cfg._target_)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in OF_TRAINING}
    shared = {name: default for name, default in defaults.items() if name in cfg and name not in ("seed", "callbacks")}
    assert len(shared) > 3
    assert {name: cfg[name] for name in shared} == shared


def test_the_settings_of_inference_have_the_same_defaults_in_commands_and_python() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Inference)}
    shipped = OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / "inference" / "default.yaml"))
    assert {**shipped, "precision": str(shipped["precision"])} == defaults
    arguments = inspect.signature(upscale).parameters
    assert {name: arguments[name].default for name in defaults} == defaults
    for command in ("app", "eval", "figure", "upscale"):
        with initialize_config_dir(config_dir(), version_base="1.3"):
            assert compose(command).inference == shipped


def test_the_settings_of_an_evaluation_and_of_files_have_the_same_defaults_in_commands_and_python() -> None:
    conf = {name: OmegaConf.load(Path(config_dir()) / f"{name}.yaml") for name in ("eval", "upscale")}
    scoring, options, part = Scoring(), Options(), Part()
    for name in ("protocols", "compare", "eight_bit", "iqa"):
        assert conf["eval"][name] == (list(value) if isinstance(value := getattr(scoring, name), tuple) else value)
    assert conf["eval"].panels == dataclasses.asdict(part)
    named = {**dataclasses.asdict(options), "save": ",".join(options.save), "format": options.file_format}
    assert all(conf["upscale"][name] == value for name, value in named.items() if name != "file_format")


@pytest.mark.parametrize(("experiment", "scale"), SCALES.items())
def test_an_experiment_keeps_the_official_settings(experiment: str, scale: int) -> None:
    """DRealSR has its own numbers of epochs, 3/200 of the official ones: an epoch is 70 times as long as RealSR's."""
    drealsr = experiment.startswith("drealsr")
    epochs = (lambda official: official * 3 // 200) if drealsr else (lambda official: official)
    cfg = composed(f"+experiment={experiment}")
    task = instantiate(cfg.model, _convert_="all")
    assert isinstance(task, AlternatingTask)
    assert cfg.scale == scale
    assert cfg.data.name == experiment.split("_")[0]
    assert cfg.data.patch_size == (48 if experiment in ("drealsr_x3", "drealsr_x4") else 96)
    assert cfg.expected_batch == 4
    assert (cfg.data.batch_size, cfg.data.patches_per_image, cfg.data.augment) == (4, 1, True)
    assert (cfg.trainer.max_epochs, cfg.trainer.max_steps) == (epochs(20_000), 2_300_000 if drealsr else -1)
    assert cfg.trainer.check_val_every_n_epoch == (1 if drealsr else 20)
    assert task.network.settings == {
        "scale": scale,
        "branching": [2, 2],
        "features": 64,
        "fusion_features": 64,
        "body": {"name": "rcab", "groups": 2, "blocks": 4, "reduction": 16},
    }
    optimizer = task.optimizer_factory([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.Adam
    expected = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-8}
    assert {name: optimizer.defaults[name] for name in expected} == expected
    scheduler = task.scheduler_factory(optimizer)
    assert isinstance(scheduler, StepDecay)
    assert (scheduler.decay_every, scheduler.decay_factor, task.scheduler_interval) == (epochs(2000), 0.5, "epoch")
    assert task.divergence == DivergenceWeightSchedule(
        weight=2e-5,
        after=epochs(200),
        period=epochs(1000),
        active=epochs(200),
        decay_every=epochs(2000),
        decay_factor=0.5,
    )
    assert task.divergence_gradient is True
    loss = task.losses["divergence"]
    settings = {"branching": (2, 2), "margin_same": 2e-5, "margin_diff": 5e-5, "decay_rate": 0.8, "scope": "batch"}
    assert loss.settings == settings | {"error_term": True}
    assert [type(task.losses[name]) for name in ("reconstruction", "fusion")] == [torch.nn.MSELoss] * 2


def test_the_divergent_experiment_differs_from_the_papers_in_the_weight_of_its_loss_alone() -> None:
    ours, theirs = composed("+experiment=realsr_x4_divergent"), composed("+experiment=realsr_x4")
    weight = DivergenceWeightSchedule(
        **{key: value for key, value in ours.model.divergence.items() if key != "gradient"}
    )
    assert {weight(epoch) for epoch in range(20_000)} == {0.2}
    settings = [OmegaConf.to_container(cfg) for cfg in (ours, theirs)]
    for one in settings:
        del one["hydra"], one["model"]["divergence"]
    assert settings[0] == settings[1]


@pytest.mark.parametrize(("experiment", "published"), BASELINES.items())
def test_a_baseline_differs_from_its_experiment_in_the_network_alone(experiment: str, published: int | None) -> None:
    ours, theirs = composed(f"+experiment={experiment}"), composed("+experiment=realsr_x4")
    with torch.device("meta"):
        network = build_network(OmegaConf.to_container(ours.model.network, resolve=True))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert network.tree.num_leaves == 1
    assert count == (published + 24 if published else count)
    assert ours.model.divergence.weight == 0
    for cfg in (ours, theirs):
        for node in ("hydra", "model.network", "model.losses.divergence", "model.divergence.weight"):
            OmegaConf.update(cfg, node, None, force_add=True)
    assert ours == theirs


def test_the_fast_recipe_trains_the_network_of_the_paper_on_the_same_data_for_a_quarter_of_the_epochs() -> None:
    fast, paper = composed(f"+experiment={FAST}"), composed("+experiment=realsr_x4")
    assert (fast.data, fast.model.network, fast.expected_batch) == (paper.data, paper.model.network, 4)
    assert fast.trainer.max_epochs * 4 == paper.trainer.max_epochs
    assert fast.model.scheduler.total == fast.trainer.max_epochs


@pytest.mark.parametrize(("experiment", "baseline"), TREES.items())
def test_a_tree_of_equal_size_refers_to_its_baseline(experiment: str, baseline: str) -> None:
    ours, theirs = composed(f"+experiment={experiment}"), composed(f"+experiment={baseline}")
    settings, single = (OmegaConf.to_container(cfg.model.network, resolve=True) for cfg in (ours, theirs))
    reference = reference_settings(settings, OmegaConf.to_container(ours.match_to))
    with torch.device("meta"):
        assert build_network(reference).settings == build_network(single).settings
    assert ours.match == "flops"
    depth = "groups" if settings["body"]["name"] == "rcab" else "blocks"
    assert len(settings["branching"]) * settings["body"][depth] == single["body"].get(depth, 6)  # IMDN's default
    paper = composed("+experiment=realsr_x4")
    for cfg in (ours, paper):
        for node in ("hydra", "model.network", "match", "match_to"):
            OmegaConf.update(cfg, node, None, force_add=True)
    assert ours == paper


def test_the_shipped_files_are_those_of_the_chosen_options_and_their_bases() -> None:
    files = shipped_files(
        config_dir(), "train", {"data": "demo", "experiment": "drealsr_x2", "hydra/launcher": "basic"}
    )
    assert [file.data.cache for file in files if "cache" in file.get("data", {})] == ["ram", "none"]  # demo, pairs
    assert [file.data.patch_size for file in files if "patch_size" in file.get("data", {})] == [96, 96, 48]


@pytest.mark.parametrize("mode", ["alternating", "joint", "sequential"])
def test_a_mode_of_optimization_is_chosen_at_the_top(mode: str) -> None:
    task = instantiate(composed(f"optimization={mode}").model, _convert_="all")
    assert task.optimization == mode


@pytest.mark.parametrize("trainer", ["auto", "cpu", "gpu", "ddp", "ddp_cpu", "slurm"])
@pytest.mark.parametrize("logger", ["csv", "wandb", "tensorboard"])
def test_every_trainer_and_logger_composes(trainer: str, logger: str) -> None:
    cfg = composed(f"trainer={trainer}", f"logger={logger}")
    OmegaConf.resolve(cfg.trainer)
    assert "csv" in cfg.logger


@pytest.mark.parametrize("data", ["realsr", "drealsr", "d2crealsr", "demo", "pairs", "photographs", "degraded"])
def test_every_data_set_composes(data: str) -> None:
    cfg = composed(f"data={data}", "scale=8", "seed=3")
    assert (cfg.data.name, cfg.data.scale, cfg.data.seed) == (data, 8, 3)


@pytest.mark.parametrize("command", ["eval", "upscale", "convert", "lists", "summary"])
def test_the_other_commands_compose(command: str) -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        compose(command)


def test_no_two_keys_hold_one_value() -> None:
    """A second route to a setting would be set in vain, or contradict the first."""
    cfg = composed("trainer=cpu")
    for former in RENAMED:
        parent, _, name = former.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        assert node is None or name not in node, former
    for present in RENAMED.values():
        if not present.startswith("model.network.body."):  # their defaults are in the signature of the body
            assert OmegaConf.select(cfg, present, default="no such key") != "no such key", present


def test_every_callback_of_the_group_can_be_built(tmp_path: Path) -> None:
    cfg = composed("trainer=cpu", run_dir=str(tmp_path))
    HydraConfig.instance().set_config(cfg)
    built = {name: type(instantiate(node, _convert_="all")).__name__ for name, node in cfg.callbacks.items()}
    assert built == {
        "best_checkpoint": "BestCheckpoint",
        "curves": "TrainingCurves",
        "log": "TrainingLog",
        "panels": "ValidationPanels",
        "progress": "TrainingProgressBar",
    }
    assert not composed("callbacks=none").get("callbacks")
