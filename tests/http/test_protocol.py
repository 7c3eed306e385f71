"""What the gateway's HTTP protocol takes from uvicorn."""

from __future__ import annotations

import inspect

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


def test_uvicorn_has_what_is_extended() -> None:
    """The names that uvicorn does not publish, and that the protocol relies on, still exist."""
    assert {"pause_reading", "resume_reading", "pause_writing", "resume_writing"} <= set(dir(FlowControl))
    assert {
        "_start_asgi_task",
        "_unset_keepalive_if_required",
        "on_response_complete",
        "timeout_keep_alive_handler",
        "shutdown",
    } <= set(dir(HttpToolsProtocol))
    assert list(inspect.signature(RequestResponseCycle).parameters) == [
        "scope",
        "transport",
        "flow",
        "logger",
        "access_logger",
        "access_log",
        "default_headers",
        "message_event",
        "expect_100_continue",
        "keep_alive",
        "on_response",
    ]
