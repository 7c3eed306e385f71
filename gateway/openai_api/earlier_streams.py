"""Remembers the events of earlier streams, so that each stream need not be learnt anew. No I/O."""

from __future__ import annotations

from gateway.openai_api.known_events import EventParts, Said, parts_of, said_by
from gateway.openai_api.repeated_events import EventTemplate

_EVENTS = 256
_KINDS = 64
_TEMPLATES = 4  # of a kind: thoughts and answers, with and without what a client can ask for
_NONE: dict[bytes, EventTemplate] = {}


class EarlierStreams:
    """Events without a text and what they said, and templates of the others.

    All is kept without the ids of the streams. It saves time, and changes nothing in what is read.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[bytes, bool], Said] = {}
        self._templates: dict[bytes, dict[bytes, EventTemplate]] = {}

    def said(self, parts: EventParts) -> Said | None:
        """What an event with these parts says; None if it must be read."""
        return self._said.get((parts.rest, bool(parts.counts)))

    def learn(self, event: bytes) -> None:
        """Remember an event, if all that it says is what can be remembered."""
        parts = parts_of(event)
        said = parts and said_by(event, parts)
        if parts and said:
            if len(self._said) >= _EVENTS:
                self._said.clear()
            self._said[parts.rest, bool(parts.counts)] = said

    def template(self, kind: bytes, head: bytes, block: bytes) -> EventTemplate | None:
        """The template of this kind that a block seems to repeat, whose first event has this head."""
        for prefix, template in self._templates.get(kind, _NONE).items():
            if block.startswith(prefix, len(head)):
                return template.with_prefix(head + prefix)
        return None

    def keep(self, kind: bytes, head: bytes, template: EventTemplate) -> None:
        """Keep a template of a stream with this head, in place of the oldest one of its kind."""
        if kind not in self._templates and len(self._templates) >= _KINDS:
            self._templates.clear()
        kept = self._templates.setdefault(kind, {})
        prefix = template.prefix.removeprefix(head)
        if prefix not in kept and len(kept) >= _TEMPLATES:
            del kept[next(iter(kept))]
        kept[prefix] = template.with_prefix(prefix)
