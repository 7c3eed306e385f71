"""A running completion: turns the engine's tokens into reasoning, content and usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from examples.tiny_reasoner.engine import Engine, Finish, Sampling, Sequence

UNFINISHED = "\ufffd"


class EngineFailed(Exception):
    """The engine failed on a sequence."""


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of one choice, and its finish reason if it ended."""

    reasoning: str = ""
    content: str = ""
    finish: Finish | None = None


class Decoder:
    """Turns token ids into text incrementally, never splitting a character."""

    def __init__(self, engine: Engine) -> None:
        self._tokenizer = engine.tokenizer
        self._ids: list[int] = []
        self._said = 0

    def add(self, token: int) -> str:
        """The text that this token completes."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(UNFINISHED):
            return ""
        new, self._said = text[self._said :], len(text)
        return new


class Choice:
    """One sampled answer."""

    def __init__(self, engine: Engine, prompt: list[int], sampling: Sampling, stops: list[str]) -> None:
        self._engine, self._stops = engine, stops
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Finish | None] | Exception] = asyncio.Queue()
        self._sequence = Sequence(prompt, sampling, self._deliver, self._put)
        self._decoder = Decoder(engine)
        self._thinking = False
        self._held = ""
        self.reasoning_tokens = 0
        self.tokens = 0
        engine.submit(self._sequence)

    def _deliver(self, token: int, finish: Finish | None) -> None:
        self._put((token, finish))

    def _put(self, event: tuple[int, Finish | None] | Exception) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, event)

    def cancel(self) -> None:
        """Make the engine drop the sequence at its next step."""
        self._sequence.cancelled = True

    async def deltas(self) -> AsyncIterator[Delta]:
        """The text as it arrives; the last delta has the finish reason."""
        try:
            while True:
                event = await self._arrived.get()
                if isinstance(event, Exception):
                    raise EngineFailed(str(event)) from event
                delta = self._read(*event)
                yield delta
                if delta.finish is not None:
                    return
        finally:
            self.cancel()

    def _read(self, token: int, finish: Finish | None) -> Delta:
        self.tokens += 1
        if token in (self._engine.think, self._engine.unthink):
            self._thinking = token == self._engine.think
            self._decoder = Decoder(self._engine)
            return Delta(content=self._release(finish), finish=finish)
        text = self._decoder.add(token)
        if self._thinking:
            self.reasoning_tokens += 1
            return Delta(reasoning=text, finish=finish)
        return self._content(text, finish)

    def _content(self, text: str, finish: Finish | None) -> Delta:
        """Content up to a stop string; holds back a tail that may be the start of one."""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            return Delta(content=self._held[: min(found)], finish="stop")
        return Delta(content=self._release(finish), finish=finish)

    def _release(self, finish: Finish | None) -> str:
        keep = 0
        if finish is None:
            keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return said


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that is a start of the stop string."""
    return next(
        (size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0
    )


@dataclass(slots=True)
class Usage:
    """Token counts of a request."""

    prompt: int
    choices: list[Choice]

    def body(self) -> dict[str, object]:
        """The counts in the shape of the OpenAI API."""
        written = sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": written,
            "total_tokens": self.prompt + written,
            "completion_tokens_details": {"reasoning_tokens": sum(c.reasoning_tokens for c in self.choices)},
        }
