"""Which web pages of other origins may use the gateway."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway.config.server import CorsSettings


def with_cors(answer: ASGIApp, settings: CorsSettings) -> ASGIApp:
    """Let the web pages of these origins call the gateway, and answer their preflights, which have no key."""
    if not settings.origins:
        return answer
    return CORSMiddleware(
        answer,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=settings.max_age,
    )
