"""Functions of the operator's own that the configuration names as MODULE:FUNCTION."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any


def load_hook(name: str) -> Callable[[str], Any]:
    """The function of this name. Raises: ValueError."""
    try:
        found = resolve_name(name)
    except Exception as error:  # noqa: BLE001 - a module may fail in any way
        raise ValueError(f"cannot load {name!r}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise ValueError(f"{name!r} is no function")  # noqa: TRY004 - one error for all that is wrong
    return found  # type: ignore[no-any-return]
