"""Remembers which fields that the gateway adds a replica refuses. No I/O: time is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.openai_api.amendments import RefusedField

_SECONDS = 600.0
"""How long a refusal is remembered. The replica may have been restarted with other options unnoticed."""
_MOST = 64  # fields that are remembered


@dataclass(slots=True)
class RefusedFields:
    """The fields that one replica refuses."""

    counts: dict[str, int] = field(default_factory=dict)
    """How many requests were asked again, by the field that was refused."""
    _until: dict[RefusedField, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._until)

    def known(self, now: float) -> frozenset[RefusedField]:
        """The fields that requests go without."""
        for refused, until in list(self._until.items()):
            if until <= now:
                del self._until[refused]
        return frozenset(self._until)

    def remember(self, refused: Iterable[RefusedField], now: float) -> list[RefusedField]:
        """Remember fields; returns those that were not known."""
        new = [one for one in refused if one not in self._until][: _MOST - len(self._until)]
        self._until |= dict.fromkeys(new, now + _SECONDS)
        return new

    def forget(self) -> None:
        """The replica has been restarted."""
        self._until.clear()

    def count(self, names: Iterable[str]) -> None:
        """Count a request that was asked again because of these fields."""
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + 1

    def names(self, now: float) -> list[str]:
        """The fields that requests go without, such as `stream_options.include_usage`."""
        return sorted({field_name(refused) for refused in self.known(now)})


def field_name(refused: RefusedField) -> str:
    """The name of a field, with its key: `stream_options.include_usage`."""
    return ".".join(refused[0])
