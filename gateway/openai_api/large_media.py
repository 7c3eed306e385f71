"""The images and other media of a large request, found without decoding anything long. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from gateway.openai_api import json_slices
from gateway.openai_api.large_requests import parsed_at_once, shrink
from gateway.openai_api.messages import Medium, medium_of
from gateway.openai_api.requests import Fields

_MOST = 20_000
"""Messages, or parts of one message, that are looked at from either end of a very long list."""

_list = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])


def media_of_large(messages: Raw, contents: list[Raw] | None = None) -> tuple[Medium, ...]:
    """Everything in the messages that is not text.

    What is too much to be looked at counts as one medium of unknown size.

    contents: of each message, if they are known.
    """
    return tuple(
        medium
        for content in (_contents(messages) if contents is None else contents)
        for medium in ([Medium()] if content is None else _media(content))
    )


def _contents(messages: Raw) -> Iterator[Raw | None]:
    """The content of each message, and None for those of very many that are left out."""
    for message in _elements(messages):
        yield None if message is None else _members(message).get("content", Raw(b"null"))


def _media(content: Raw) -> Iterator[Medium]:
    odd = memoryview(content)[0] not in b'["n'  # neither a list, nor a text, nor null
    for part in _elements(content):
        if part is None:
            yield Medium()
        elif part[0] == ord("{"):
            members = _members(part)
            medium = medium_of({name: shrink(memoryview(value)) for name, value in members.items()})
            if medium:  # the part was cut, but its bytes are those of the whole
                payload = len(memoryview(members["image_url"])) if medium.payload else 0
                yield medium._replace(payload=payload)
        else:
            odd = odd or part[0] != ord('"')
    if odd:
        yield Medium()


def _elements(value: Raw) -> Iterator[memoryview | None]:
    """The elements of a list, and None for those of a very long one that are left out."""
    text = json_slices.stripped(memoryview(value))
    if text[0] != ord("["):
        return
    if parsed_at_once(text):
        yield from (memoryview(item) for item in _list.decode(text))
        return
    items, total = json_slices.both_ends(text, _MOST)
    yield from items
    if total > len(items):
        yield None


def _members(text: memoryview) -> Fields:
    """The fields of an object; of one with very many, the first and the last."""
    if text[0] != ord("{"):
        return {}
    if parsed_at_once(text):
        return _object.decode(text)
    items, _ = json_slices.both_ends(text, _MOST)
    return {name: Raw(value) for name, value in map(json_slices.member, items)}
