"""The tree of exceptions, and their encoding as OpenAI's error object."""

from __future__ import annotations

import json
import re

import pytest

from gateway.errors import (
    BackendError,
    GatewayError,
    InvalidApiKey,
    RequestError,
    all_errors,
)
from gateway.http import errors as _of_connections  # noqa: F401 - defines more classes of the tree
from tests.docs.pages import page, section

CLASSES = all_errors()


@pytest.mark.parametrize("kind", CLASSES)
def test_body(kind: type[GatewayError]) -> None:
    """Every error is encoded as OpenAI's error object, which does not contain the internal detail."""
    error = kind('what is wrong: é "q" \n')
    error.detail = "http://10.0.0.1 failed"

    assert json.loads(error.body()) == {
        "error": {"message": 'what is wrong: é "q" \n', "type": kind.type, "param": None, "code": kind.code}
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_event(kind: type[GatewayError]) -> None:
    """In a stream, an error is one event that contains the same object."""
    event = kind("two\nlines").sse()

    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert event[6:-2] == kind("two\nlines").body()


@pytest.mark.parametrize("kind", CLASSES)
def test_headers(kind: type[GatewayError]) -> None:
    """Every error is JSON, and Retry-After is a whole number of seconds, at least 1."""
    error = kind("m")
    assert (b"content-type", b"application/json") in error.headers()
    assert b"retry-after" not in dict(error.headers())
    for seconds, header in ((0.1, b"1"), (2.6, b"3")):
        error.retry_after = seconds
        assert dict(error.headers())[b"retry-after"] == header


def test_unknown_key_asks_for_one() -> None:
    """A 401 says how to authenticate, as HTTP requires."""
    assert dict(InvalidApiKey("m").headers())[b"www-authenticate"] == b"Bearer"


def test_codes_are_distinct() -> None:
    """No two errors share code and type, except that InternalError has those of the root class."""
    names = [(kind.code, kind.type) for kind in CLASSES if kind is not GatewayError]
    codes = [code for code, _ in names]

    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z_]+", code) for code in codes)


def test_statuses_fit_the_branches() -> None:
    """The client's mistakes have status 4xx, and only errors of a backend are retried on another replica."""
    for kind in CLASSES:
        assert 400 <= kind.status < 500 or not issubclass(kind, RequestError)
        assert issubclass(kind, BackendError) or not kind.retryable


def test_drawn_tree_is_the_tree() -> None:
    """The tree in the documentation shows every class with its status."""
    drawn = dict(re.findall(r"(\w+) +(\d{3})\b", section(page("errors.md"), "The classes")))

    assert {kind.__name__: str(kind.status) for kind in CLASSES} == {
        "GatewayError": "500",
        "RequestError": "400",
    } | drawn
