"""The errors of a client's connection, which are found before its request is read."""

from __future__ import annotations

from gateway.errors import GatewayError, RequestError


class UnsupportedMediaType(RequestError):
    """The body is not declared to be JSON. A web page of any site may send other types."""

    status = 415
    code = "unsupported_media_type"


class UnsupportedContentCoding(UnsupportedMediaType):
    """The body is compressed in a way that is not understood."""

    code = "unsupported_encoding"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"accept-encoding", b"gzip, deflate")]


class BrokenContentCoding(RequestError):
    """The body is not compressed as its `Content-Encoding` says."""

    code = "invalid_encoding"


class HostNotAllowed(RequestError):
    """The name by which the client found the gateway is not one of the gateway's."""

    status = 421
    code = "host_not_allowed"


class TooManyConnections(GatewayError):
    """No connection could be closed to make room for another."""

    status = 503
    code = "too_many_connections"
