"""Fields that schedule, place or transfer a request at a backend belong to the operator."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.openai_api.scheduling import SCHEDULING_FIELDS, without_scheduling
from tests.fakes.backend import Backend
from tests.http.raw_http import ask, assert_error
from tests.making import chat
from tests.serving import configuration, serving

VALUES: dict[str, Any] = {"priority": -(2**63), "kv_transfer_params": {"remote_host": "10.0.0.9"}}
FIELDS = {name: VALUES.get(name, 1) for name in SCHEDULING_FIELDS}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"model": "tiny", "prompt": "hello"},
    "/v1/embeddings": {"model": "tiny", "input": "hello"},
}
KEYS = [{"name": "interns", "key": "sk-i"}, {"name": "batch", "key": "sk-b", "scheduling": True}]


@pytest.mark.parametrize("name", sorted(SCHEDULING_FIELDS))
def test_field_is_dropped_or_refused(name: str) -> None:
    """Each field is dropped, with all others kept; or the error names it."""
    request = chat(**{name: FIELDS[name], "cache_salt": "s", "temperature": 0.5})

    assert set(without_scheduling(request).fields) == {"model", "messages", "cache_salt", "temperature"}
    with pytest.raises(InvalidRequest) as refused:
        without_scheduling(request, refuse=True)
    assert refused.value.param == name


def test_ordinary_request_is_the_same_object() -> None:
    """A request without such fields is not copied."""
    request = chat(temperature=0.5)

    assert without_scheduling(request, refuse=True) is request


@pytest.mark.parametrize("path", BODIES)
async def test_only_some_keys_schedule(backend: Backend, path: str) -> None:
    """By default the fields are dropped at each endpoint, except for a key with `scheduling`."""
    async with serving(configuration(backend.url, keys=KEYS)) as running:
        for secret in ("sk-i", "sk-b"):
            answer = await ask(running.http, running.url, path, BODIES[path] | FIELDS, x_api_key=secret)
            assert answer.status == 200

    interns, batch = [SCHEDULING_FIELDS & set(r.json) for r in backend.requests if r.path == path]
    assert (interns, batch) == (frozenset(), SCHEDULING_FIELDS)


async def test_escaped_and_repeated_names(backend: Backend) -> None:
    """A name with escapes, or one that is sent twice, is recognised."""
    body = rb'{"model":"tiny","prompt":"x","\u0070riority":-1,"priority":-2}'
    kind = {"Content-Type": "application/json"}
    async with serving(configuration(backend.url, client_scheduling="drop")) as running:
        answer = await running.http.post(running.url + "/v1/completions", data=body, headers=kind)
        assert answer.status == 200

    assert "priority" not in backend.requests[-1].json


async def test_refuse_and_keep(backend: Backend) -> None:
    """`client_scheduling` says what happens to the fields of keys without the permission."""
    path = "/v1/chat/completions"
    for policy, status in (("refuse", 400), ("keep", 200)):
        async with serving(configuration(backend.url, keys=KEYS, client_scheduling=policy)) as running:
            answer = await ask(
                running.http, running.url, path, BODIES[path] | {"priority": 1}, x_api_key="sk-i"
            )
            allowed = await ask(
                running.http, running.url, path, BODIES[path] | {"priority": 1}, x_api_key="sk-b"
            )
        assert allowed.status == 200
        if status == 400:
            assert_error(answer, 400, "invalid_value")
            assert answer.json["error"]["param"] == "priority"
        else:
            assert backend.requests[-2].json["priority"] == 1


async def test_gateway_without_keys(backend: Backend) -> None:
    """Without keys the fields pass, as nobody could be harmed, unless the operator says so."""
    body = BODIES["/v1/completions"] | {"priority": 1}
    for policy, sent in ((None, 1), ("drop", None)):
        async with serving(configuration(backend.url, client_scheduling=policy)) as running:
            await ask(running.http, running.url, "/v1/completions", body)
        assert backend.requests[-1].json.get("priority") == sent


async def test_dry_run_shows_what_is_dropped(backend: Backend) -> None:
    """`/v1/route` lists the fields among those removed."""
    async with serving(configuration(backend.url, client_scheduling="drop")) as running:
        body = BODIES["/v1/chat/completions"] | {"priority": 1, "rid": "x"}
        answer = await ask(running.http, running.url, "/v1/route", body)

    assert {"priority", "rid"} <= set(answer.json["request"]["removed"])
