"""Lets an admin see, promote and roll back heads. The event loop never waits for the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec

from gateway.config.settings import Settings
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable
from gateway.evidence.errors import FeedbackUnavailable, HeadRefused
from gateway.evidence.heads.archive import list_heads, promotion_log, roll_back
from gateway.evidence.heads.log import HeadProblem
from gateway.evidence.heads.promoting import promote_checked
from gateway.evidence.rows import PromotionRow
from gateway.evidence.writer import EvidenceWriter

_BY = "admin"
_RETRY_AFTER = 5.0
_LINES = 20
"""Of the log that are shown, newest first."""
_Found = TypeVar("_Found")


class HeadDesk:
    """What the admin API does with heads."""

    def __init__(self, writer: EvidenceWriter) -> None:
        """writer: has the store, once it was reached."""
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "head-desk")

    def close(self) -> None:
        """Stop the thread. What is under way ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def show(self) -> dict[str, Any]:
        """The heads in the store and the log of promotions. Raises: FeedbackUnavailable."""
        return await self._ask(shown_heads)

    async def promote(self, version: str, settings: Settings, *, why: str, anyway: bool) -> PromotionRow:
        """Put a head in force. Raises: HeadRefused, FeedbackUnavailable."""
        act = partial(promote_checked, settings=settings, by=_BY, why=why, anyway=anyway)
        return await self._ask(lambda engine: act(engine, version))

    async def roll_back(self, *, why: str) -> PromotionRow:
        """Put the head before in force. Raises: HeadRefused, FeedbackUnavailable."""
        return await self._ask(partial(roll_back, by=_BY, why=why))

    async def _ask(self, act: Callable[[EvidenceStore], _Found]) -> _Found:
        engine = self._writer.engine
        if engine is None or self._writer.failing:
            raise _away(self._writer.failing)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, act, engine)
        except HeadProblem as error:
            raise HeadRefused(str(error)) from None
        except EvidenceUnavailable as error:
            raise _away(str(error)) from None


def shown_heads(engine: EvidenceStore) -> dict[str, Any]:
    """Heads and promotions, newest first, as JSON has them. It blocks. Raises: EvidenceUnavailable."""
    log = promotion_log(engine)
    found: dict[str, Any] = msgspec.to_builtins(
        {"heads": list_heads(engine), "promotions": log[: -_LINES - 1 : -1]}
    )
    return found | {"promoted": log[-1].head if log else None}


def _away(detail: str | None) -> FeedbackUnavailable:
    text = "The store of evidence cannot be reached: try again later"
    return FeedbackUnavailable(text, retry_after=_RETRY_AFTER, detail=detail)
