"""What the schema of the settings asks for at each place of the file. No I/O."""

from __future__ import annotations

import difflib
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, HttpUrl, SecretStr

from gateway.config.settings import SettingPath, Settings

_TEXTS = frozenset((str, SecretStr, HttpUrl))
_OTHERS = frozenset((int, float, bool, Any))


def inside(asked: Any, name: str | int) -> Any:
    """The type of a setting within a section, a list or a mapping; None if there is no such setting."""
    for kind in _alternatives(asked):
        if get_origin(kind) in (list, dict):
            return get_args(kind)[-1]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if name in kind.model_fields:
                return kind.model_fields[str(name)].annotation
            if name == "key" and "hash" in kind.model_fields:  # a secret, of which only the hash is kept
                return str
    return None


def asks_text(asked: Any) -> bool:
    """Whether a value of this type is a text, whatever it looks like: the key `12345678`, the name `no`."""
    kinds = _alternatives(asked)
    return any(kind in _TEXTS for kind in kinds) and not any(kind in _OTHERS for kind in kinds)


def asks_number(asked: Any) -> bool:
    """Whether a value of this type is a number, so that the word `off` is a mistake and no 0."""
    kinds = _alternatives(asked)
    return any(kind in (int, float) for kind in kinds) and not any(kind in (bool, Any) for kind in kinds)


def suggestion(place: SettingPath) -> str:
    """`; did you mean …?` if a setting of that section has a similar name."""
    section: Any = Settings
    for part in place[:-1]:
        section = inside(section, part)
    names = [
        name
        for kind in _alternatives(section)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
    ]
    close = difflib.get_close_matches(str(place[-1]), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _alternatives(asked: Any) -> list[Any]:
    """The types of a union without their constraints; of a list of words, the type of the words."""
    origin, inner = get_origin(asked), get_args(asked)
    if origin is Literal:
        return [type(word) for word in inner]
    if origin in (list, dict) or not inner:
        return [asked]
    if hasattr(asked, "__metadata__"):  # Annotated
        return _alternatives(inner[0])
    return [kind for option in inner for kind in _alternatives(option)]
