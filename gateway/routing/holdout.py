"""The hold-out: who gets the fixed policy that would run without the gateway. No I/O, no randomness.

The arm follows from a hash of who asks or of the conversation, so that it stays the same in all turns, in all
gateways and after restarts. Everybody below a share is also below a larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Literal

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from gateway.config.evidence import HoldoutSettings
from gateway.openai_api.requests import Request
from gateway.routing.policy import Choice, fixed_to

Arm = Literal["adaptive", "holdout"]

_END = 1_024  # characters of a text that are hashed at either end
_LONGEST_UNIT = 512  # characters
_USER_FIELDS = ("safety_identifier", "user")
_text = Decoder(str)


class Holdout(Struct, frozen=True):
    """Puts each request into an arm."""

    share: float
    by: str
    policy: str
    """The name of the tier that the held out get."""

    @classmethod
    def of(cls, settings: HoldoutSettings) -> Holdout:
        """The hold-out under these settings."""
        return cls(settings.share, settings.by, settings.policy)

    def unit(self, key: str | None, request: Request, headers: Mapping[bytes, bytes]) -> str:
        """Who or what stays in one arm: a user, the value of a header, or else the conversation."""
        if self.by == "user":
            named = _user(request)
        elif self.by == "conversation":
            named = ""
        else:
            named = headers.get(self.by.lower().encode(), b"").decode("latin-1")
        return named[:_LONGEST_UNIT] or conversation_unit(key, request.opening or (request.prompt,))

    def arm(self, unit: str) -> Arm:
        """The arm of a unit."""
        place = _hash_place(unit) if self.by == "conversation" else _place(unit)
        return "holdout" if place < self.share else "adaptive"


def conversation_unit(key: str | None, opening: Iterable[str]) -> str:
    """Names a conversation by its key and the texts up to the user's first one.

    Of a long text, the length and both ends count.
    """
    parts = []
    for text in (key or "", *opening):
        ends = text if len(text) <= 2 * _END else text[:_END] + text[-_END:]
        parts.append(f"{len(text)}:{ends}")
    return blake2b("".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fixed_choice(choice: Choice, index: int) -> Choice:
    """The rung of the fixed policy in place of a choice, as far as the bounds allow it."""
    return fixed_to(choice, index, "holdout")


def _hash_place(digest: str) -> float:
    """Where a hash in hexadecimal digits lies in [0, 1)."""
    return int(digest[:16], 16) / 2**64


def _place(unit: str) -> float:
    """Where a unit lies in [0, 1), evenly over all units."""
    hashed = blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8, person=b"holdout")
    return _hash_place(hashed.hexdigest())


def _user(request: Request) -> str:
    """The user that the client names; empty if none."""
    for name in _USER_FIELDS:
        if name in request.fields:
            try:
                if user := _text.decode(request.fields[name]):
                    return user
            except DecodeError:
                continue
    return ""
