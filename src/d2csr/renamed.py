"""Configuration keys that were renamed."""

from __future__ import annotations

from typing import Any

RENAMED = {
    **{f"model.{key}": f"model.network.{key}" for key in ("scale", "features", "branching", "fusion_features")},
    **{f"model.{key}": f"model.network.body.{key}" for key in ("groups", "blocks", "reduction")},
    "model.optimizer.halve_every": "model.scheduler.halve_every",
    "model.divergence_scope": "model.losses.divergence.scope",
    **{f"model.divergence.{key}": f"model.losses.divergence.{key}" for key in ("margin_same", "margin_diff", "decay_rate")},
    **{f"panels.{key}": f"callbacks.panels.{key}" for key in ("images", "crop", "every", "files")},
}


def with_new_names(flat: dict[str, Any]) -> dict[str, Any]:
    """Return settings, by their full keys, under the present names of these keys."""
    return {RENAMED.get(key, key): value for key, value in flat.items()}
