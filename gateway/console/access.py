"""Who may see the console. No I/O."""

from __future__ import annotations

from gateway.config.access import fingerprint, key_digest
from gateway.config.settings import Settings
from gateway.errors import InvalidApiKey, RouteNotFound
from gateway.http.headers import bearer


def authorize(settings: Settings, headers: dict[bytes, bytes]) -> None:
    """Check that the console is served, and that the request has a key that opens it.

    Raises: RouteNotFound, InvalidApiKey.
    """
    if not settings.serves_console:
        raise RouteNotFound("There is no route /console")
    openers, secret = settings.console_keys, bearer(headers)
    if openers and (not secret or key_digest(secret) not in openers):
        raise InvalidApiKey(
            "The console needs its own key, or the admin's: send it as `Authorization: Bearer KEY`",
            tried=fingerprint(secret) if secret else None,
        )
