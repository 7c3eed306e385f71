"""What the gateway's HTTP protocol requires of uvicorn."""

from __future__ import annotations

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.config.server import HttpLimits
from gateway.http.protocol import protocol


def test_uvicorn_without_the_upgrade_hook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If uvicorn drops the private hook that we override, the gateway does not start, and says why."""
    monkeypatch.delattr(HttpToolsProtocol, "_unsupported_upgrade_warning")

    with pytest.raises(RuntimeError, match=r"uvicorn \S+ is not supported"):
        protocol(HttpLimits(), lambda: 60)
