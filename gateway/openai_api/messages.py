"""The messages of a chat: their texts, and the images and other media beside them. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from gateway.openai_api.images import Size, size_in_data_url

_TEXTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking", "tool_reference"})
_IMAGES = frozenset({"image_url", "input_image", None})
_OTHERS = (
    *("image_pil", "image_embeds", "audio_url", "input_audio", "audio_embeds", "video_url", "video_embeds"),
    *("video", "audio", "image", "file", "data", "source"),
)
"""Keys of a part that carries something else than a text or an image."""
_CHANGING = frozenset({"chat_template", "media_io_kwargs", "mm_payload", "mm_processor_kwargs"})
"""Fields by which a client changes how its prompt or its media become tokens."""


class Part(Struct):
    """One part of a message, such as a text or an image; only texts are read."""

    text: str | None = None
    type: Any = None
    uuid: Any = None


class Message(Struct):
    role: str = ""
    content: str | list[Part | str] | None = None


class Medium(NamedTuple):
    """Something in a request whose tokens its bytes do not bound."""

    payload: int = 0
    """Bytes of the body that are its data, and so become no text."""
    image: bool = False
    size: Size | None = None
    """Of an image: its size, if that can be told."""


class _Message(Struct):
    content: str | list[dict[str, Raw] | str] | None = None


class _Messages(Struct):
    messages: list[_Message] = []


_NULL = Raw(b"null")
_messages = msgspec.json.Decoder(_Messages)
_Url = str | dict[str, Any] | None
_url = msgspec.json.Decoder(_Url)


_UNREADABLE = {"type": "unreadable"}
_object = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[Raw])


def readable_messages(messages: Raw) -> Raw:
    """The messages without what we cannot read. A part that is no text and no object is a medium.

    Raises: msgspec.ValidationError.
    """
    if messages == _NULL:
        return messages
    return Raw(msgspec.json.encode([_readable_message(message) for message in _list.decode(messages)]))


def _readable_message(message: Raw) -> dict[str, Any]:
    given = _object.decode(message)
    read: dict[str, Any] = {}
    if _first_byte(role := given.get("role", _NULL)) == b'"':
        read["role"] = role
    content = given.get("content", _NULL)
    first = _first_byte(content)
    if first == b"[":
        read["content"] = [_readable_part(part) for part in _list.decode(content)]
    elif first == b'"':
        read["content"] = content
    elif content != _NULL:
        read["content"] = [_UNREADABLE]
    return read


def _readable_part(part: Raw) -> Any:
    first = _first_byte(part)
    if first == b'"':
        return part
    if first != b"{":
        return _UNREADABLE
    given = _object.decode(part)
    if _first_byte(given.get("text", _NULL)) not in b'"n':
        del given["text"]
    return given


def _first_byte(value: Raw) -> bytes:
    return bytes(memoryview(value)[:1])


def text_of(message: Message) -> str:
    """The text of a message, one line for each part."""
    content = message.content
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else part.text or "" for part in content or ())


def media_of(messages: list[Message], body: bytes) -> tuple[Medium, ...]:
    """Everything in the messages that is not text. If there is any, `body` is read again to tell what."""
    lists = [message.content for message in messages if isinstance(message.content, list)]
    if not lists or not any(map(_has_media, lists)):
        return ()
    raw = [part for message in _messages.decode(body).messages for part in _parts(message)]
    return tuple(medium for part in raw if (medium := medium_of(part)))


def _has_media(content: list[Part | str]) -> bool:
    return any(not isinstance(part, str) and not _is_text(part.type, part.uuid) for part in content)


def _is_text(kind: Any, uuid: Any) -> bool:
    """Whether a part of a message is a text, by its `type` and `uuid`. A uuid names media sent before."""
    return isinstance(kind, str) and kind in _TEXTS and uuid is None


def changing(fields: dict[str, Raw]) -> tuple[Medium, ...]:
    """One medium of unknown size for each field that changes how a prompt becomes tokens."""
    if _CHANGING.isdisjoint(fields):
        return ()
    return tuple(Medium() for name in _CHANGING if fields.get(name, _NULL) != _NULL)


def _parts(message: _Message) -> list[dict[str, Raw]]:
    content = message.content
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def medium_of(part: dict[str, Raw]) -> Medium | None:
    """What a part of a message carries beside text; None if that is nothing."""
    kind, uuid = (msgspec.json.decode(part[name]) if name in part else None for name in ("type", "uuid"))
    if _is_text(kind, uuid) or (kind is uuid is None and part.keys() <= {"text", "type", "uuid"}):
        return None
    if (kind is not None and not isinstance(kind, str)) or any(name in part for name in _OTHERS):
        return Medium()
    if "image_url" not in part or (kind not in _IMAGES and not (uuid is not None and kind in _TEXTS)):
        return Medium()
    raw = part["image_url"]
    try:
        url = _url.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return Medium()
    address = url.get("url") if isinstance(url, dict) else url
    if not isinstance(address, str) or not address[:5].lower().startswith("data:"):
        return Medium(image=True)
    return Medium(len(memoryview(raw)), True, size_in_data_url(address))
