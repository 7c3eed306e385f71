"""The errors of a client's connection, which are found before its request is read."""

from __future__ import annotations

from gateway.errors import RequestError


class TooManyConnections(RequestError):
    """No connection could be closed to make room for another."""

    status = 503
    type = "server_error"
    code = "too_many_connections"
