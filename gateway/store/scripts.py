"""The Lua scripts, with what they share in front of each."""

from __future__ import annotations

import re
from importlib.resources import files

_PARTS = frozenset(["clock", "call", "ordinary", "window"])
_STANDALONE = frozenset(["pace"])  # scripts that do without them


def sources(clock: str | None = None) -> dict[str, str]:
    """The scripts by name, each with what it needs in front. clock: Lua in place of clock.lua."""
    folder = files("gateway.store").joinpath("lua")
    texts = {item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir()}
    begin = (clock or texts["clock"]) + texts["call"]
    before = dict.fromkeys(texts, begin + texts["window"])
    # first, so that an ordinary call does not make the functions of the other rules
    before["exchange"] = begin + texts["ordinary"] + texts["window"]
    return {
        script: text if script in _STANDALONE else _with_constants(before[script] + text)
        for script, text in texts.items()
        if script not in _PARTS
    }


def _with_constants(text: str) -> str:
    """Put the values of constants in their places: each call would bind them anew to each function."""
    values = dict(re.findall(r"^local ([A-Z_]+) = ('\w'|\d+)", text, re.MULTILINE))
    text = re.sub(r"^local [A-Z_]+ = ('\w'|\d+).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\b[A-Z_]{2,}\b", lambda name: values.get(name[0], name[0]), text)
