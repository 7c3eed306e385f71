"""Says what is wrong with a setting, in the words of the file. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.config.settings import SettingPath

_NAME = ("[key]",)
"""Where pydantic finds the mistake that is in the name of a setting, and not in its value."""
_MAPPING, _LIST = "must be a mapping of settings", "must be a list"
_WHOLE, _NUMBER, _SWITCH = "must be a whole number", "must be a number", "must be true or false"
_URL = "must be a URL that begins with http:// or https://"
_MESSAGES = {
    "url_type": _URL,
    "url_scheme": _URL,
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "list_type": _LIST,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_type": _WHOLE,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "bool_parsing": _SWITCH,
    "bool_type": _SWITCH,
    "string_type": "must be text",
    "missing": "missing",
    "too_short": "must not be empty",
}


def message_of(entry: Any) -> str:
    """The message for an error of pydantic, whose own words speak of dictionaries and instances."""
    kind, said = entry["type"], str(entry["msg"]).removeprefix("Value error, ")
    if kind == "missing" and entry["loc"][-1] == "hash":
        return "missing: give `key`, or `hash`"
    if kind == "literal_error":
        return f"must be {entry['ctx']['expected']}"
    if entry["loc"][-1:] == _NAME:
        return f"the name {_plain(said)}"
    if "relative URL without a base" in said:
        return _URL
    return _MESSAGES.get(kind) or _plain(said)


def place_of(entry: Any) -> SettingPath:
    """The path of the setting that an error is about."""
    place: SettingPath = tuple(entry.get("ctx", {}).get("at", entry["loc"]))
    return place[:-1] if place[-1:] == _NAME else place


def _plain(said: str) -> str:
    return said.replace("Input should", "must").replace("String should", "must")
