from __future__ import annotations

import pytest

from d2csr.errors import ConfigError
from d2csr.loggers import WandbLogger


@pytest.fixture
def begun(monkeypatch):
    """What W&B is asked to begin; it then says that nobody is logged in."""
    import wandb
    from wandb.errors import UsageError

    asked = {}

    def init(**settings):
        asked.update(settings)
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", init)
    return asked


def begin(folder, **settings):
    with pytest.raises(ConfigError) as error:
        _ = WandbLogger(folder, project="d2csr", **settings).experiment
    return str(error.value)


def test_what_is_missing_is_said_with_the_ways_out(begun, tmp_path):
    message = begin(tmp_path)
    assert message.startswith("logger=wandb: No API key configured. Use `wandb login` to log in. Set WANDB_MODE=off")
    assert "logger=csv" in message
    assert begun["dir"] == str(tmp_path)
    assert begun["project"] == "d2csr"


def test_only_a_run_that_is_resumed_in_its_folder_goes_on_in_wandb(begun, tmp_path):
    begin(tmp_path, resume_from="elsewhere")
    assert begun["id"] is None
    (tmp_path / "wandb" / "id.txt").write_text("abc123\n")
    begin(tmp_path)
    assert begun["id"] is None
    begin(tmp_path, resume_from=str(tmp_path))
    assert begun["id"] == "abc123"
    assert begun["resume"] == "allow"
    begin(tmp_path, resume_from=str(tmp_path), id="named")
    assert begun["id"] == "named"
