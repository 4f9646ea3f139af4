"""Networks by the name of their architecture, rebuilt from plain settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2csr.checks import one_of
from d2csr.models.d2csr import D2CSR
from d2csr.models.ensemble import PathEnsemble
from d2csr.models.sr_network import SRNetwork

#: Network classes by name.
ARCHITECTURES: dict[str, type[SRNetwork]] = {"d2csr": D2CSR, "ensemble": PathEnsemble}


def build_network(settings: Mapping[str, Any], classes: Mapping[str, type[SRNetwork]] = ARCHITECTURES) -> SRNetwork:
    """Build a network from settings such as ``network.settings``.

    Args:
        settings: the arguments of the class, and ``architecture``, its name in :data:`ARCHITECTURES`; without it the
            network is a :class:`D2CSR`.
        classes: of the architectures, by name.

    Raises:
        ConfigError: a setting has an impossible value.
        TypeError: a setting is unknown or missing.
    """
    return architecture_of(settings, classes)(
        **{name: value for name, value in settings.items() if name != "architecture"}
    )


def architecture_of(
    settings: Mapping[str, Any], classes: Mapping[str, type[SRNetwork]] = ARCHITECTURES
) -> type[SRNetwork]:
    """Return the class of a network with these settings; raises ConfigError for an unknown architecture."""
    return classes[one_of("architecture", settings.get("architecture", "d2csr"), tuple(classes))]
