"""Who may see the console. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.access import fingerprint, key_digest
from gateway.config.settings import Settings
from gateway.errors import InvalidApiKey, RouteNotFound
from gateway.http.headers import bearer


def authorize(settings: Settings, headers: Mapping[bytes, bytes]) -> str | None:
    """Check that the console is served, and that the request has a key that opens it.

    Returns whose key it is, `admin` or `console`; None if no key is needed.

    Raises: RouteNotFound, InvalidApiKey.
    """
    if not settings.serves_console:
        raise RouteNotFound("There is no route /console")
    openers, secret = settings.console_keys, bearer(headers)
    if not openers:
        return None
    digest = key_digest(secret) if secret else None
    if digest not in openers:
        raise InvalidApiKey(
            "The console needs its own key, or the admin's: send it as `Authorization: Bearer KEY`",
            tried=fingerprint(secret) if secret else None,
        )
    return "admin" if digest == settings.admin.hash else "console"
