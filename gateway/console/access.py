"""Whether the console is served, and which keys open it. No I/O."""

from __future__ import annotations

from gateway.config.access import fingerprint, key_digest
from gateway.config.settings import Settings
from gateway.errors import InvalidApiKey, RouteNotFound
from gateway.http.headers import bearer


def enabled(settings: Settings) -> bool:
    """Whether the console is served: as configured, else if it needs no key or there is a key for it."""
    by_default = not settings.keys or bool(_openers(settings))
    return by_default if settings.console.enabled is None else settings.console.enabled


def _openers(settings: Settings) -> list[str]:
    """Digests of the keys that open the console: its own and the admin's. Empty if no key is needed."""
    if settings.console.hash is None and not settings.keys:
        return []
    return [digest for digest in (settings.console.hash, settings.admin.hash) if digest is not None]


def authorize(settings: Settings, headers: dict[bytes, bytes]) -> None:
    """Check that the console is served, and that the request has a key that opens it.

    Raises: RouteNotFound, InvalidApiKey.
    """
    if not enabled(settings):
        raise RouteNotFound("There is no route /console")
    openers, secret = _openers(settings), bearer(headers)
    if openers and (not secret or key_digest(secret) not in openers):
        raise InvalidApiKey(
            "The console needs its own key, or the admin's: send it as `Authorization: Bearer KEY`",
            tried=fingerprint(secret) if secret else None,
        )
