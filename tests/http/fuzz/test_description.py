"""Requests generated from the gateway's own OpenAPI description."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.http.fuzz.live import FUZZ, ROUTES, SECONDS, Live, assert_fair
from tests.http.raw_http import Answer


@pytest.fixture(scope="module")
def operations(live: Live) -> dict[str, Any]:
    """The operations in the gateway's own description."""
    schema = schemathesis.openapi.from_url(f"{live.running.url}/openapi.json")
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


OPERATIONS = [
    *("GET /healthz", "GET /readyz", "GET /metrics", "GET /v1/models", "GET /v1/models/{name}"),
    *("GET /admin/budgets", "GET /admin/budgets/{name}", "GET /admin/budgets/{name}/{holder}"),
    *("PUT /admin/budgets/{name}/{holder}", "DELETE /admin/budgets/{name}/{holder}"),
    *(f"POST /admin/budgets/{{name}}/{{holder}}/{word}" for word in ("top-up", "reset")),
    *("GET /admin/heads", "POST /admin/heads/{version}/promote", "POST /admin/heads/rollback"),
    "POST /v1/feedback",
    *(
        "GET /console",
        "GET /console/quality",
        "GET /health",
        "GET /ping",
        "POST /tokenize",
        "POST /detokenize",
    ),
    *(f"POST {path}" for path in ROUTES),
]


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    """The list above has every operation that the gateway describes."""
    assert set(OPERATIONS) == set(operations) - {"GET /console/events"}  # which never ends


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        *((f"POST {path}", GenerationMode.NEGATIVE) for path in (*ROUTES, "/v1/feedback")),
    ],
)
def test_own_description(operations: dict[str, Any], label: str, mode: GenerationMode) -> None:
    """Requests generated from the description, valid and invalid, are served or refused."""

    @settings(parent=FUZZ, max_examples=20)
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        response = case.call(timeout=SECONDS)
        case.validate_response(response, checks=[not_a_server_error])
        headers = {name.lower(): values[0] for name, values in response.headers.items()}
        assert_fair(Answer(response.status_code, headers, response.content), b"")

    run()
