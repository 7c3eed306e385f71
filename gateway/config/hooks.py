"""Functions of the operator's own that the configuration names as MODULE:FUNCTION."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load_hook(name: str) -> Callable[[str], Any]:
    """The function of this name. Raises: ValueError."""
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # noqa: BLE001 - a module may fail in any way
        raise ValueError(f"cannot load {name!r}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise ValueError(f"{name!r} is no function")  # noqa: TRY004 - one error for all that is wrong
    return found  # type: ignore[no-any-return]
