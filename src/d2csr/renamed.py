"""Configuration keys that were renamed or replaced, by their former names."""

from __future__ import annotations

RENAMED = {
    **{f"model.{key}": f"model.network.{key}" for key in ("scale", "features", "branching", "fusion_features")},
    **{f"model.{key}": f"model.network.body.{key}" for key in ("groups", "blocks", "reduction")},
    **{f"model.{part}.halve_every": "model.scheduler.decay_every" for part in ("optimizer", "scheduler")},
    "model.divergence.halve_every": "model.divergence.decay_every",
    "model.divergence_scope": "model.losses.divergence.scope",
    **{f"model.divergence.{n}": f"model.losses.divergence.{n}" for n in ("margin_same", "margin_diff", "decay_rate")},
    **{f"panels.{key}": f"callbacks.panels.{key}" for key in ("images", "crop", "at", "zoom", "every", "files")},
}

# By command: the keys that it takes by their former names, too, on the command line.
BY_COMMAND = {
    "train": RENAMED,
    "summary": RENAMED,
    "upscale": {"precision": "inference.precision", "self_ensemble": "inference.self_ensemble"},
}
# By command: the keys that it refuses, with what to write instead.
REPLACED = {"eval": {"protocol": "protocols=[…]", "lpips": "iqa=[lpips]"}}
