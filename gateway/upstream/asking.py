"""Sends small requests of the gateway's own: health checks, probes, embeddings, counts of prompts."""

from __future__ import annotations

from gateway.config.models import Replica
from gateway.errors import BackendError
from gateway.upstream.client import HttpClient
from gateway.upstream.origin import authorization

_MOST_BYTES = 1 << 24  # of a response, such as a list of models


async def ask_once(
    client: HttpClient,
    replica: Replica,
    method: bytes,
    path: str,
    body: bytes,
    *,
    connect: float,
    age: float,
) -> tuple[int, bytes]:
    """Send one request, and return the status and the body. See `Upstream.ask`.

    Raises: NoBackend, BackendDisconnected, BackendError.
    """
    # A check gets a connection of its own. If it left one to a request, nobody could tell whether the
    # request killed the replica or the connection had been idle for too long.
    single = method == b"GET"
    kind = [(b"Content-Type", b"application/json")] if body else []
    response = await client.request(
        method,
        replica.base,
        path,
        [*authorization(replica), *kind],
        body,
        connect=connect,
        age=age,
        tls=replica.tls,
        fresh=single,
        keep=not single,
    )
    try:
        body = await response.read(_MOST_BYTES)
    finally:
        response.close()
    if len(body) > _MOST_BYTES:
        raise BackendError("The backend sent too long a response", detail=f"over {_MOST_BYTES} bytes")
    return response.status, body
