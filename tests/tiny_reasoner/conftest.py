"""The shipped model as an engine, and as a server on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
from openai import AsyncOpenAI

from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.serve import WEIGHTS, create_app


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A running engine with four slots."""
    engine = Engine(WEIGHTS, slots=4)
    engine.start()
    yield engine
    engine.close()


class Server:
    """The server under test."""

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine, self.url = engine, f"http://127.0.0.1:{port}"
        self.client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    async def idle(self) -> None:
        """Wait until the engine has nothing to do."""
        while self.engine.load != (0, 0):
            await asyncio.sleep(0.01)


@pytest.fixture
async def server(free_port: int) -> AsyncIterator[Server]:
    """A server on a real port with the model `tiny`."""
    engine = Engine(WEIGHTS, slots=4)
    config = uvicorn.Config(create_app(engine, "tiny"), port=free_port, log_level="error", ws="none")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    server = Server(engine, free_port)
    yield server
    await server.client.close()
    running.should_exit = True
    await task
