"""``match=parameters|flops``: the configured network, adjusted to the size of the reference network ``match_to``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from d2csr.commands.base import plain
from d2csr.errors import ConfigError
from d2csr.files import atomic_write

if TYPE_CHECKING:
    from d2csr.models.matching import Match

_log = logging.getLogger(__name__)
_NETWORK = "model.network"
_WIDTHS = ("features", "fusion_features")


def apply_match(cfg: DictConfig, resumed: Mapping[str, Any] | None = None) -> bool:
    """Write the width or depth that ``match`` asks for into ``model.network``, and set ``match`` to null, in place.

    The size of ``resumed``, the settings of the network of a resumed run, is kept, and nothing is searched. Return
    whether ``match`` was set.

    Raises:
        ConfigError: the reference is missing or impossible, or no width or depth comes near it.
    """
    if cfg.match is None:
        return False
    network = plain(OmegaConf.select(cfg, _NETWORK))
    if not isinstance(network, dict):
        raise ConfigError(f"match: {cfg.model._target_} has no network of d2csr; remove match.")
    changed = _matched(cfg, network) if resumed is None else _sizes(network, resumed)
    for name, value in changed.items():
        OmegaConf.update(cfg, f"{_NETWORK}.{name}", value, force_add=True)
    cfg.match = None
    return True


def save_configuration(cfg: DictConfig, run_dir: str | Path) -> None:
    """Write the configuration over the one that Hydra saved at the start of the run, if it did."""
    path = Path(run_dir) / ".hydra" / "config.yaml"
    if path.is_file():
        with atomic_write(path) as partial:
            OmegaConf.save(cfg, partial)


def _matched(cfg: DictConfig, network: dict[str, Any]) -> dict[str, int]:
    from d2csr.checks import keys_below
    from d2csr.distributed import is_rank_zero
    from d2csr.models.cost import on_meta
    from d2csr.models.matching import match_network, reference_settings

    to = plain(cfg.match_to)
    if all(value in (None, {}) for value in to.values()):
        raise ConfigError(
            "match: no reference network; set match_to.paths=1 for a single path, match_to.branching=[2,2] for a tree, "
            "or other settings of match_to."
        )
    with keys_below("match_to"):
        reference = reference_settings(network, to)
        on_meta(reference)
    match = match_network(network, reference, cfg.match, by=cfg.match_by)
    if is_rank_zero():
        _log.info("%s", _described(match, cfg.match))
    return {name: now for name, (_, now) in match.changed.items()}


def _described(match: Match, quantity: str) -> str:
    from d2csr.models.matching import LR_SIZE

    sizes = [f"{_NETWORK}.{name}={now} (was {before})" for name, (before, now) in match.changed.items()]
    difference = f"{abs(match.difference):.1f} % {'more' if match.difference > 0 else 'fewer'}"
    return (
        f"match={quantity} by {match.way}: {', '.join(sizes) or 'nothing to change'}; "
        f"{difference} {quantity.replace('flops', 'FLOPs')} than the reference: "
        f"{match.cost.parameters:,} and {match.reference.parameters:,} parameters, {match.cost.flops / 1e9:.4g} and "
        f"{match.reference.flops / 1e9:.4g} GFLOP for LR of {LR_SIZE}×{LR_SIZE}"
    )


def _sizes(network: Mapping[str, Any], resumed: Mapping[str, Any]) -> dict[str, int]:
    """Return the width and depth of a resumed network, as far as the configured one has these settings too."""
    from d2csr.models.matching import DEPTHS

    sizes = {name: resumed[name] for name in _WIDTHS if name in network and name in resumed}
    body = resumed.get("body")
    if isinstance(body, dict) and body.get("name") == network["body"].get("name"):
        sizes |= {f"body.{name}": body[name] for name in DEPTHS if type(body.get(name)) is int}
    return sizes
