"""The page at /docs: the OpenAPI description as plain HTML, without any script and from this server alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2rem; border-bottom: 1px solid #8886 }
h3 { margin-bottom: 0; font: 600 15px ui-monospace, monospace }
p { margin: .2rem 0 } table { border-collapse: collapse; margin: .4rem 0 }
td { padding: .1rem 1rem .1rem 0; vertical-align: top } code { font-family: ui-monospace, monospace }
"""
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_routes(app: FastAPI, description: Callable[[], dict[str, Any]]) -> None:
    """Define the route. `description` returns the OpenAPI description."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(render(description()), media_type="text/html", headers=_HEADERS)


def render(description: dict[str, Any]) -> str:
    """An OpenAPI description as a page."""
    title = escape(f"{description['info']['title']} {description['info']['version']}")
    sections: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            sections.setdefault(tag, []).append(_operation(method, path, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in sections.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        '<p>The same as <a href="openapi.json">OpenAPI description</a>, for programs.</p>'
        f"{body}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    schema = schema.get("oneOf", [schema])[0]
    required = schema.get("required", [])
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(field))}</td>"
        f"<td>{'required' if name in required else ''}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    ]
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<h3>{method.upper()} {escape(path)}</h3><p>{escape(operation.get('summary', ''))}</p>{table}"


def _type(field: dict[str, Any]) -> str:
    if field.get("type") == "array":
        return f"array of {_type(field.get('items', {}))}"
    least = f", at least {field['minimum']}" if "minimum" in field else ""
    return f"{field.get('type', 'any')}{least}"
