"""The Lua scripts, with what they share in front of each."""

from __future__ import annotations

import re
from importlib.resources import files

_STANDALONE = frozenset(["pace"])  # scripts that do without clock.lua and window.lua


def sources(clock: str | None = None) -> dict[str, str]:
    """The scripts by name, each with clock.lua and window.lua in front. clock: Lua in place of clock.lua."""
    folder = files("gateway.store").joinpath("lua")
    texts = {item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir()}
    own = texts.pop("clock")
    shared = (clock or own) + texts.pop("window")
    return {
        script: text if script in _STANDALONE else _with_constants(shared + text)
        for script, text in texts.items()
    }


def _with_constants(text: str) -> str:
    """Put the values of constants in their places: each call would bind them anew to each function."""
    values = dict(re.findall(r"^local ([A-Z_]+) = ('\w'|\d+)", text, re.MULTILINE))
    text = re.sub(r"^local [A-Z_]+ = ('\w'|\d+).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\b[A-Z_]{2,}\b", lambda name: values.get(name[0], name[0]), text)
