"""Why a replica cannot serve: a short vocabulary for log, console, probe and metrics. No I/O."""

from __future__ import annotations

from typing import Self

CAUSES = {
    "name_not_resolved": "its name cannot be resolved",
    "gateway_limit": "the gateway has no file descriptor or port left for a connection",
    "tls_files": "a file of its `tls` settings cannot be read",
    "unreachable": "there is no route to its address",
    "connect_timeout": "the connection timed out: packets are dropped, or its queue is full",
    "refused": "connection refused: nothing listens at its port",
    "connect_failed": "the connection failed",
    "tls_timeout": "the TLS handshake timed out: it may not speak TLS at this port",
    "tls_handshake": "the TLS handshake failed: it may not speak TLS, or want a client certificate",
    "tls_not_spoken": "it does not speak TLS at this port: the URL may need http://",
    "tls_closed": "it closed the connection after the TLS handshake: it may want another client certificate",
    "client_certificate": "it wants another client certificate: see `tls.cert` and `tls.key`",
    "certificate_unknown_ca": "its certificate comes from an unknown CA: set `tls.ca`",
    "certificate_expired": "its certificate has expired",
    "certificate_wrong_name": "its certificate is for another name: correct the URL, or set `tls.name`",
    "certificate_invalid": "its certificate is not valid",
    "tls_expected": "it speaks TLS at this port: the URL needs https://",
    "closed": "it closed the connection without a response, as a server also does that expects https://",
    "unreadable": "its response is not HTTP",
    "response_timeout": "the connection is open, but the response timed out",
    "status_401": "it answers 401 (unauthorized): set the `api_key` that it accepts",
    "status_403": "it answers 403 (forbidden): its `api_key` may not do this",
    "status_404": "it answers 404 (not found): `health.path` sets the path of the check",
    "status_429": "it answers 429: it is overloaded",
    "status_500": "it answers 500: see its own log",
    "status_503": "it answers 503: it is starting, stopping or overloaded",
    "status_3xx": "it answers with a redirect, which is not followed: correct the URL",
    "status_4xx": "it refuses the request",
    "status_5xx": "it, or a proxy before it, fails",
    "status_other": "it answers with an unexpected status",
    "models_unreadable": "its /v1/models is no list of models: the URL is wrong, or a proxy asks for a login",
    "model_not_listed": "it does not list the model, and may refuse it: see `served_name`",
}
"""Every cause and its sentence. Of two causes the later one happened at a later step of a request."""

_RANKS = {word: rank for rank, word in enumerate(CAUSES)}


class Cause(str):
    """Why a replica cannot serve, as text for a log: the sentence of a word, and what was seen."""

    __slots__ = ("word",)

    word: str
    """A key of `CAUSES`."""

    def __new__(cls, word: str, seen: str = "") -> Self:
        """`seen` is in words of the gateway or the operating system, never in those of the backend."""
        made = super().__new__(cls, f"{CAUSES[word]} ({seen})" if seen else CAUSES[word])
        made.word = word
        return made

    @property
    def sentence(self) -> str:
        """What the word means, without addresses."""
        return CAUSES[self.word]

    @property
    def rank(self) -> int:
        """The position of the word in `CAUSES`."""
        return _RANKS[self.word]


def status_cause(status: int, path: str) -> Cause:
    """The cause for a response to `GET path` whose status is not 2xx."""
    exact, group = f"status_{status}", f"status_{status // 100}xx"
    word = next((word for word in (exact, group) if word in CAUSES), "status_other")
    return Cause(word, f"GET {path}: status {status}")
