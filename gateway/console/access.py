"""Whether the console is served, and who may watch it. No I/O."""

from __future__ import annotations

from gateway.config.access import matching_digest
from gateway.config.settings import Settings
from gateway.errors import InvalidApiKey, RouteNotFound
from gateway.http.headers import bearer

# --- routes ------------------------------------------------------------------------------------------


def enabled(settings: Settings) -> bool:
    """Whether the console is on: by its setting, else when it needs no key or there is one for it."""
    by_default = not settings.keys or bool(_openers(settings))
    return by_default if settings.console.enabled is None else settings.console.enabled


def _openers(settings: Settings) -> list[str]:
    """Digests of the keys that may watch, the console's own and the admin's; none where everybody may."""
    if settings.console.hash is None and not settings.keys:
        return []
    return [digest for digest in (settings.console.hash, settings.admin.hash) if digest is not None]


def authorize(settings: Settings, headers: dict[bytes, bytes]) -> None:
    """Refuse who may not watch; raises RouteNotFound where the console is off, else InvalidApiKey."""
    if not enabled(settings):
        raise RouteNotFound("There is no route /console")
    openers = _openers(settings)
    if openers and matching_digest(bearer(headers) or "", openers) is None:
        raise InvalidApiKey(
            "The console needs its own key, or the admin's: send it as `Authorization: Bearer KEY`"
        )
