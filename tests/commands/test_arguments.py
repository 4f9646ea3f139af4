"""Command-line arguments in the forms that users write, and one line with the nearest names for mistyped ones."""

from __future__ import annotations

import os

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from d2csr.commands.arguments import hydra_arguments
from d2csr.renamed import RENAMED
from helpers import mostly_slow


def value_of(argument: str) -> object:
    (rewritten,) = hydra_arguments([argument], lists=("save",), paths=("input",))
    override = OverridesParser.create().parse_override(rewritten)
    assert not override.is_sweep_override()
    assert hydra_arguments([rewritten], lists=("save",), paths=("input",)) == [rewritten]  # once more changes nothing
    return override.value() if not hasattr(override.value(), "text") else override.value().text


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("save=sr", "sr"),
        ("save=sr,leaves,weights", ["sr", "leaves", "weights"]),
        ("save=[sr,leaves]", ["sr", "leaves"]),
        ("save=null", None),
    ],
)
def test_lists_need_no_brackets(argument: str, value: object) -> None:
    assert value_of(argument) == value


@pytest.mark.parametrize(
    "path",
    [
        "photo.jpg",
        "/data/RealSR(V3)/a.png",
        "my photo, 1 = {x}.png",
        "photos/**/*.jpg",
        "x[1].png",
        "it's.png",
        'a "b".png',
        "C:\\photos\\",
        "größe.png",
        "~/a.png",
        "$HOME.png",
        'a\\"b',
    ],
)
def test_any_path_is_taken_as_it_is(path: str) -> None:
    assert value_of(f"input={path}") == path


@pytest.mark.parametrize("quoted", ['"a (1).png"', "'a (1).png'"])
def test_quoted_paths_are_left_alone(quoted: str) -> None:
    assert value_of(f"input={quoted}") == "a (1).png"


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("ckpt=[a,runs/b.ckpt]", ["a", "runs/b.ckpt"]),
        ("ckpt=[run (1), RealSR(V3)/b = 2.ckpt]", ["run (1)", "RealSR(V3)/b = 2.ckpt"]),
        ("ckpt=['a, b',c d]", ["a, b", "c d"]),
        ("ckpt=[a b]", ["a b"]),
        ("ckpt=[]", []),
        ("ckpt=a,b.ckpt", "a,b.ckpt"),
        ("ckpt='[a].ckpt'", "[a].ckpt"),
    ],
)
def test_a_list_of_paths_has_brackets(argument: str, values: object) -> None:
    keys = {"lists": ("ckpt",), "paths": ("ckpt",)}
    [rewritten] = hydra_arguments([argument], **keys)
    assert hydra_arguments([rewritten], **keys) == [rewritten]
    found = OverridesParser.create().parse_override(rewritten).value()
    texts = [getattr(one, "text", one) for one in (found if isinstance(found, list) else [found])]
    assert texts == (values if isinstance(values, list) else [values])


def test_other_arguments_and_sweeps_are_left_alone() -> None:
    for arguments in (
        ["scale=2,4", "+experiment=demo", "--help"],
        ["--multirun", "save=sr,leaves"],
        ["-m", "input=a,b"],
    ):
        assert hydra_arguments(arguments, lists=("save",), paths=("input",)) == arguments


@pytest.mark.parametrize(
    ("arguments", "together"),
    [
        (["a=1", "--config-dir", "mine", "b=2"], ["a=1", "b=2", "--config-dir", "mine"]),
        (["-cd", "x=y", "a=1", "--cfg", "job", "~b"], ["-cd", "x=y", "a=1", "~b", "--cfg", "job"]),
        (["a=1", "--info", "b=2"], ["a=1", "b=2", "--info"]),
        (["a=1", "--info", "config", "b=2"], ["a=1", "b=2", "--info", "config"]),
    ],
)
def test_options_may_stand_between_overrides(arguments: list[str], together: list[str]) -> None:
    assert hydra_arguments(arguments) == together


def test_a_launcher_is_asked_in_a_multirun() -> None:
    """Else Hydra would run the job here and now, without a word."""
    submitted = hydra_arguments(["hydra/launcher=submitit_slurm", "seed=0,1"])
    assert submitted == ["hydra/launcher=submitit_slurm", "seed=0,1", "--multirun"]
    assert hydra_arguments(submitted) == submitted
    for shown in (["hydra/launcher=submitit_slurm", "--cfg", "hydra"], ["hydra/launcher=basic"]):
        assert hydra_arguments(shown) == shown


@pytest.mark.parametrize(
    ("argument", "rewritten"),
    [
        ("model.features=32", "model.network.features=32"),
        ("model.divergence_scope=image", "model.losses.divergence.scope=image"),
        ("++model.optimizer.halve_every=3", "++model.scheduler.decay_every=3"),
        ("~panels.images", "~callbacks.panels.images"),
        ("model.blocks=1,2", "++model.network.body.blocks=1,2"),
        ("model.network.body.depth=3", "++model.network.body.depth=3"),
        ("+model.network.body.depth=3", "++model.network.body.depth=3"),
        ("model.network.body={name: mine}", "model.network.body={name: mine}"),
        ("model.divergence.weight=1", "model.divergence.weight=1"),
        ("resume=model.features=3", "resume=model.features=3"),
        ("--config-dir=model.features", "--config-dir=model.features"),
    ],
)
def test_former_keys_and_open_nodes_reach_the_present_keys(argument: str, rewritten: str) -> None:
    settings = {"renamed": RENAMED, "open_nodes": ("model.network.body",)}
    assert hydra_arguments([argument], **settings) == [rewritten]
    assert hydra_arguments([rewritten], **settings) == [rewritten]
    assert hydra_arguments(["--multirun", argument], **settings) == ["--multirun", rewritten]


@pytest.mark.parametrize(
    ("arguments", "message"),
    mostly_slow(
        [
            (["callbacks=nil"], "callbacks=nil: no such option. Choose one of default, none."),
            (["model/scheduler=cosin"], "model/scheduler=cosin: no such option. Did you mean cosine?"),
            (
                ["+experiment=realsr_x5"],
                "experiment=realsr_x5: no such option. Did you mean realsr_x4 or realsr_x3 or re",
            ),
            (["experiment=demo"], "experiment: has no default; write +experiment=demo."),
            (
                ["model.featurs=3"],
                "model.featurs: no such key. Did you mean model.features or model.fusion_features? To add it anyway, ",
            ),
            (["data.patchsize=48"], "data.patchsize: no such key. Did you mean data.patch_size"),
            (["+experiment=demo", "seeds=3", "scale=4"], "seeds: no such key. Did you mean seed?"),
            (["resume.x=3"], "resume.x: no such key. Did you mean resume?"),
            (
                ["trainer.fast_dev_run=true"],
                "trainer.fast_dev_run: no such key. trainer has _target_, accelerator, acc",
            ),
            (["~trainer.max_epoch"], "trainer.max_epoch: no such key. Did you mean trainer.max_epochs or trainer.max_"),
            (["zzz=1"], "zzz: no such key. --help names the keys.\n"),  # +zzz would be refused
            (["panels.evry=1"], "panels.evry: no such key. Did you mean panels.every?"),
            (["+seed=3"], "seed: exists already; write seed=VALUE, without +."),
            (["scale=2,4"], "scale=2,4: several values need --multirun; a list has brackets, scale=[2,4]."),
            (
                ["model.losses=[1]"],
                "model.losses=[1]: a value of another kind than the key has. The keys of a node are ",
            ),
            (["scale=["], "scale=[: cannot be read (no viable alternative at input '[')."),
        ]
    ),
)
def test_a_mistyped_argument_is_one_message(call, tmp_path, arguments: list[str], message: str) -> None:
    finished = call("train", *arguments)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"error: {message}")
    assert finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_advice_can_be_followed(call) -> None:
    assert call("train", "+experiment=demo", "model.features=16", "--cfg", "job").returncode == 0
    assert call("train", "+experiment=demo", "+trainer.fast_dev_run=true", "--cfg", "job").returncode == 0


@pytest.mark.slow
def test_the_full_error_of_hydra_is_shown_on_demand(run) -> None:
    finished = run("train", "callbacks=nil", HYDRA_FULL_ERROR="1")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
    assert "MissingConfigException" in finished.stderr


def test_the_users_choice_of_full_errors_is_kept(call, monkeypatch) -> None:
    for value in (None, "0"):
        if value is not None:
            monkeypatch.setenv("HYDRA_FULL_ERROR", value)
        call("lists", "dataset=pairs", "root=nowhere")
        assert os.environ.get("HYDRA_FULL_ERROR") == value
        call("lists", "data=pairs")
        assert os.environ.get("HYDRA_FULL_ERROR") == value
