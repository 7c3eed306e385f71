"""
A minimal gateway for comparison, built with FastAPI and httpx. It has no keys, limits, metrics or retries.
It runs in its own environment: `python mini.py PORT UPSTREAM`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx  # type: ignore[import-not-found, unused-ignore]
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False


def create_app(upstream: str) -> FastAPI:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(base_url=upstream, limits=limits, timeout=600)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> Response:
        request = client.build_request("POST", "/v1/chat/completions", json=body.model_dump())
        answer = await client.send(request, stream=body.stream)
        kind = answer.headers["content-type"]
        if not body.stream:
            return Response(answer.content, answer.status_code, media_type=kind)

        async def relay() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            finally:
                await answer.aclose()

        return StreamingResponse(relay(), answer.status_code, media_type=kind)

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(sys.argv[2]), port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning"
    )
