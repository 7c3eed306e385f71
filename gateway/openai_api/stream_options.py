"""The `stream_options` of a request: what its client asks for, and what a backend is asked for. No I/O."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw, Struct

_USUAL = 128  # bytes of options that are worth remembering
_object = msgspec.json.Decoder(dict[str, Raw])


class StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None

    @property
    def counts(self) -> bool:
        """The client asks for a running count in every chunk, for which vLLM needs both options."""
        return bool(self.include_usage and self.continuous_usage_stats)


def with_usage(options: Raw | None, *, counts: bool = False) -> Raw:
    """The client's `stream_options` with usage turned on; with `counts`, also running counts.

    Without `counts`, the client did not ask for usage. An option of its own that needs it, which the backend
    would have ignored, must not take effect now.
    """
    given = b"null" if options is None else bytes(options)
    return Raw(_usual_options(given, counts) if len(given) <= _USUAL else _options(given, counts))


def _options(options: bytes, counts: bool) -> bytes:  # noqa: FBT001
    given = {} if options == b"null" else _object.decode(options)
    asked = {"include_usage": True}
    if counts:
        asked["continuous_usage_stats"] = True
    else:
        given.pop("continuous_usage_stats", None)
    return msgspec.json.encode(given | asked)


_usual_options = lru_cache(maxsize=256)(_options)
