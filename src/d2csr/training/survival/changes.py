"""What has changed in the settings since the checkpoint that a run goes on from."""

from __future__ import annotations

from typing import Any

# Settings that change nothing in the weights; of a group, all of it.
_HARMLESS = (
    "resume",
    "init_from",
    "checkpoint",
    "logger",
    "data.num_workers",
    "data.cache",
    "data.list_dir",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.check_val_every_n_epoch",
    "trainer.num_sanity_val_steps",
    "trainer.limit_val_batches",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.default_root_dir",
    "model.protocol",
)
_UNSAID = ("resume", "init_from")
_MISSING = "not set"


def changes(before: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Compare the settings of two runs.

    Args:
        before: nested dicts of plain values.
        now: the same.

    Returns:
        A sentence for each setting that differs, ``data.batch_size was 4, is 8``; and the names of those among them by
        which the weights become others than without an interruption.
    """
    old, new = _flat(before), _flat(now)
    differing = [
        name
        for name in dict.fromkeys([*old, *new])
        if old.get(name, _MISSING) != new.get(name, _MISSING) and not _in(name, _UNSAID)
    ]
    sentences = [f"{name} was {_text(old, name)}, is {_text(new, name)}" for name in differing]
    return sentences, [name for name in differing if not _in(name, _HARMLESS)]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = value
    return flat


def _in(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _text(settings: dict[str, Any], name: str) -> str:
    if name not in settings:
        return _MISSING
    value = settings[name]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
