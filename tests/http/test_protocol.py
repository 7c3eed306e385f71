"""What the gateway's connections take from uvicorn."""

from __future__ import annotations

import inspect

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


def test_uvicorn_calls_its_protocols_as_ours_expect() -> None:
    """The parameters that uvicorn passes, and the state that it shares with connections, still exist."""
    assert list(inspect.signature(HttpToolsProtocol).parameters) == [
        "config",
        "server_state",
        "app_state",
        "_loop",
    ]
    assert {"connections", "tasks", "default_headers"} <= set(vars(ServerState()))
    assert "shutdown" in dir(HttpToolsProtocol)
