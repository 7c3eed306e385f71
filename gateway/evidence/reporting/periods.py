"""Which requests are compared: those under configurations that had a hold-out. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.evidence.quality import ADAPTIVE, HOLDOUT
from gateway.evidence.reporting.cells import ConfigCell


def compared_configs(cells: Iterable[ConfigCell]) -> list[str]:
    """The configurations under which both arms had requests.

    While there is no hold-out, all requests are adaptive. They would compare one time with another.
    """
    arms: dict[str, set[str]] = {}
    for cell in cells:
        arms.setdefault(cell.config, set()).add(cell.arm)
    return sorted(config for config, found in arms.items() if {ADAPTIVE, HOLDOUT} <= found)
