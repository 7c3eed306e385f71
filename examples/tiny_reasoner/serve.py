"""An OpenAI-compatible server for the tiny reasoner: `python -m examples.tiny_reasoner.serve --port 8001`."""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from examples.tiny_reasoner.arrival import Arrival
from examples.tiny_reasoner.chat import render_chat
from examples.tiny_reasoner.completion import Choice, Delta, EngineFailed, Usage
from examples.tiny_reasoner.engine import Engine, Sampling
from examples.tiny_reasoner.protocol import BadRequest, ChatRequest, check_texts, echo, from_validation, room

WEIGHTS = Path(__file__).parent / "weights"
REFUSALS = {400: "invalid_json", 405: "method_not_allowed", 408: "request_timeout", 413: "request_too_large"}
METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="{name}"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="{name}"}} {waiting}
"""


class Service:
    """Answers chat completions with one engine."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name, self.since = engine, name, int(time.time())

    def models(self) -> dict[str, Any]:
        """List the one model."""
        longest = self.engine.longest
        card = {"id": self.name, "object": "model", "created": self.since, "owned_by": "thinkmeter"}
        return {"object": "list", "data": [{**card, "max_model_len": longest}]}

    def begin(self, request: ChatRequest) -> Usage:
        """Check a request and hand its choices to the engine."""
        if request.model != self.name:
            said = f"The model `{echo(request.model)}` does not exist."
            raise BadRequest(said, "model", "model_not_found", 404)
        check_texts(request)
        text = render_chat((message.turn for message in request.messages), thinking=request.thinks)
        longest, tokenizer = self.engine.longest, self.engine.tokenizer
        # do not tokenize a huge prompt, which would block all other requests
        if len(text) > longest * tokenizer.widest:
            raise BadRequest.context(longest, "the messages take more", "messages")
        prompt = tokenizer.encode(text)
        most = room(request, len(prompt), longest)
        choices = []
        for index in range(request.n):
            seed = None if request.seed is None else request.seed + index
            sampling = Sampling(
                max_tokens=most,
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k if 0 < request.top_k < len(tokenizer) else 0,
                seed=seed,
                thinking_budget=request.thinking_token_budget,
            )
            choices.append(Choice(self.engine, prompt, sampling, request.stop))
        return Usage(len(prompt), choices)


async def _whole(choice: Choice, index: int, *, show: bool) -> dict[str, Any]:
    reasoning = content = ""
    finish = None
    async for delta in choice.deltas():
        reasoning, content, finish = reasoning + delta.reasoning, content + delta.content, delta.finish
    message = {
        "role": "assistant",
        "content": content or None,
        "reasoning": reasoning if show and reasoning else None,
    }
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def answer(usage: Usage, head: dict[str, Any], request: Request, *, show: bool) -> Response:
    """A whole completion; the engine stops when the client disconnects."""
    work = asyncio.gather(*(_whole(choice, i, show=show) for i, choice in enumerate(usage.choices)))
    gone = asyncio.ensure_future(_until_gone(request))
    both: tuple[asyncio.Future[Any], ...] = (work, gone)
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=499)
        body = {**head, "object": "chat.completion", "choices": work.result(), "usage": usage.body()}
        return Response(orjson.dumps(body), media_type="application/json")
    finally:
        for task in both:
            task.cancel()
            with suppress(asyncio.CancelledError, EngineFailed):
                await task


async def _merged(choices: list[Choice]) -> AsyncIterator[tuple[int, Delta]]:
    """The deltas of all choices in order of arrival."""
    arrived: asyncio.Queue[tuple[int, Delta | Exception]] = asyncio.Queue()

    async def pump(index: int, choice: Choice) -> None:
        try:
            async for delta in choice.deltas():
                arrived.put_nowait((index, delta))
        except EngineFailed as error:
            arrived.put_nowait((index, error))

    pumps = [asyncio.create_task(pump(index, choice)) for index, choice in enumerate(choices)]
    try:
        left = len(choices)
        while left:
            index, delta = await arrived.get()
            if isinstance(delta, Exception):
                raise delta
            left -= delta.finish is not None
            yield index, delta
    finally:
        for task in pumps:
            task.cancel()


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


async def stream(usage: Usage, head: dict[str, Any], asked: ChatRequest) -> AsyncIterator[bytes]:
    """A stream of server-sent events; the engine stops when the client disconnects."""
    options = asked.stream_options
    head = {**head, "object": "chat.completion.chunk"}

    def chunk(index: int, delta: dict[str, Any], finish: str | None) -> bytes:
        body = {
            **head,
            "choices": [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}],
        }
        if options and options.continuous_usage_stats:
            body["usage"] = usage.body()
        return _event(body)

    for index in range(len(usage.choices)):
        yield chunk(index, {"role": "assistant", "content": ""}, None)
    try:
        async for index, delta in _merged(usage.choices):
            shown = {"content": delta.content} if delta.content else {}
            if delta.reasoning and asked.include_reasoning:
                shown["reasoning"] = delta.reasoning
            if shown or delta.finish:
                yield chunk(index, shown, delta.finish)
    except EngineFailed as error:
        yield _event(BadRequest(str(error), None, "engine_error", 500).body())
        return
    finally:
        for choice in usage.choices:
            choice.cancel()
    if options and options.include_usage:
        yield _event({**head, "choices": [], "usage": usage.body()})
    yield b"data: [DONE]\n\n"


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(BadRequest)
    async def bad(_: Request, error: BadRequest) -> JSONResponse:
        return JSONResponse(error.body(), error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(from_validation(list(error.errors())).body(), 400)

    @app.exception_handler(EngineFailed)
    async def failed(_: Request, error: EngineFailed) -> JSONResponse:
        return JSONResponse(BadRequest(str(error), None, "engine_error", 500).body(), 500)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        code = REFUSALS.get(error.status_code, "not_found")
        body = BadRequest(str(error.detail), None, code, error.status_code).body()
        return JSONResponse(body, error.status_code, error.headers)


def create_app(engine: Engine, name: str) -> FastAPI:
    """The application; it starts and stops the engine."""
    service = Service(engine, name)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    app = FastAPI(title="tiny reasoner", lifespan=lifespan)
    app.add_middleware(Arrival)
    _add_errors(app)

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return service.models()

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        running, waiting = engine.load
        return PlainTextResponse(METRICS.format(name=name, running=running, waiting=waiting))

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        usage = service.begin(asked)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        if asked.stream:
            return StreamingResponse(stream(usage, head, asked), media_type="text/event-stream")
        return await answer(usage, head, request, show=asked.include_reasoning)

    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, default=WEIGHTS, help="a Hugging Face directory")
    add("--served-model-name", default="tiny")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8001)
    add("--slots", type=int, default=32, help="sequences in one batch")
    options = parser.parse_args()
    app = create_app(Engine(options.model, options.slots), options.served_model_name)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
