"""Messages for mistyped arguments: one line, with the nearest names."""

from __future__ import annotations

import os

import pytest

from helpers import mostly_slow


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
