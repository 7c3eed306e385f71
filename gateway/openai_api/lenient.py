"""Reads fields whose values have another type than the API's, as vLLM reads them. No I/O.

vLLM takes `"20"` and `20.0` for 20, and `"true"` and 1 for true. A value that we take for another is sent as
that other one, so that the backend cannot take it for a third. A wish that cannot be read is no wish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import Raw, Struct
from pydantic import TypeAdapter, ValidationError

from gateway.errors import InvalidJson, InvalidRequest
from gateway.openai_api.messages import readable_messages

_READERS: dict[type, Callable[[Any], Any]] = {
    bool: TypeAdapter(bool).validate_python,
    int: TypeAdapter(int).validate_python,
}
"""Pydantic's own conversions, because vLLM's are pydantic's."""

_WISHES = frozenset(
    (
        *("reasoning_effort", "reasoning", "thinking", "thinking_token_budget", "enable_thinking"),
        *("thinking_budget", "chat_template_kwargs", "metadata", "tools"),
    )
)
"""Fields that are passed on unread if they cannot be read."""
_DROPPED = frozenset(("best_of",))
"""Fields that are not passed on if they cannot be read: a backend must not multiply what we count once."""


@dataclass(frozen=True, slots=True)
class LenientFields:
    """The fields of a request, read leniently."""

    sent: dict[str, Raw]
    """What the backend gets."""
    read: dict[str, Raw]
    """What we read: only fields of the right types."""


_members_of = cache(msgspec.structs.fields)


def read_leniently(fields: dict[str, Raw], body: type[Struct]) -> LenientFields:
    """Turn the values of a request into the types of `body`.

    Raises: InvalidJson, InvalidRequest.
    """
    sent, read = dict(fields), {}
    for field in _members_of(body):
        name = field.encode_name
        if (raw := fields.get(name)) is None:
            continue
        try:
            value = _COUNTED[name](raw) if name in _COUNTED else _readable(raw, field.type)
        except msgspec.ValidationError as error:
            if name in _DROPPED:
                del sent[name]
            elif name not in _WISHES:
                message, _, path = str(error).partition(" - at `$")
                raise InvalidRequest(f"{message} at {name}{path.rstrip('`')}", param=name) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error) from None
        else:
            read[name] = value
            if name not in _WISHES and name not in _COUNTED:
                sent[name] = value
    return LenientFields(sent, read)


def whole_number(value: Any) -> int | None:
    """The whole number that a value of a client stands for, such as 20, 20.0 or "20"; None if it is none."""
    try:
        return None if value is None else _READERS[int](value)
    except ValidationError:
        return None


def is_true(value: Any) -> bool:
    """Whether a value of a client is read as true, such as true, 1 or "yes"; not so if it cannot be read."""
    try:
        return value is not None and _READERS[bool](value) is True
    except ValidationError:
        return False


def malformed(error: Exception) -> InvalidJson:
    """What is told of a body that cannot be decoded."""
    if isinstance(error, RecursionError):
        return InvalidJson("The request body is nested too deeply")
    return InvalidJson(f"The request body is not valid JSON: {error}")


def _readable(raw: Raw, kind: Any) -> Raw:
    """The value as JSON of the right type; the same bytes if it has that type.

    Raises: msgspec.ValidationError.
    """
    try:
        msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as unlike:
        value = msgspec.json.decode(raw)
        try:
            converted = _converted(value, kind)
        except ValidationError:
            raise unlike from None
        msgspec.convert(converted, kind)  # also checks the range
        return Raw(msgspec.json.encode(converted))
    return raw


def _converted(value: Any, kind: Any) -> Any:
    """The value as the type that is asked for; itself if it needs or knows no conversion.

    Raises: pydantic.ValidationError.
    """
    kinds = _alternatives(kind)
    if isinstance(value, dict):
        struct = next((inner for inner in kinds if issubclass(inner, Struct)), None)
        return value if struct is None else _members(value, struct)
    if value is None or type(value) in kinds:
        return value
    return next((read(value) for inner, read in _READERS.items() if inner in kinds), value)


def _members(value: dict[str, Any], kind: type[Struct]) -> dict[str, Any]:
    """An object whose members have the right types; those that cannot be converted are left out."""
    made = dict(value)
    for field in _members_of(kind):
        if (name := field.encode_name) not in value:
            continue
        try:
            made[name] = _converted(value[name], field.type)
            msgspec.convert(made[name], field.type)
        except (msgspec.ValidationError, ValidationError):
            del made[name]
    return made


@cache
def _alternatives(kind: Any) -> tuple[type, ...]:
    """The classes of a union, such as `int` and `NoneType` of `int | None`."""
    if isinstance(kind, type) and not get_args(kind):
        return (kind,)
    return tuple(found for inner in get_args(kind) for found in _alternatives(inner))


def _readable_prompt(raw: Raw) -> Raw:
    """A legacy prompt in which everything but texts and lists is a token id, such as `1.0`."""
    value = msgspec.json.decode(raw)
    if isinstance(value, list):
        value = [item if isinstance(item, str) else [] if isinstance(item, list) else 0 for item in value]
    return Raw(msgspec.json.encode(value))


_COUNTED: dict[str, Callable[[Raw], Raw]] = {"messages": readable_messages, "prompt": _readable_prompt}
"""Fields of which only the texts and the number of items matter to us. They are passed on as they are."""
