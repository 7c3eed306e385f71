"""Looks from time to time at what is certified, tells it, and sets what acts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.evidence.database import EvidenceUnavailable
from gateway.evidence.drift.looking import ServingSnapshot
from gateway.evidence.quality_promise.pairs import PromiseFound, told
from gateway.evidence.quality_promise.reading import read_promises
from gateway.evidence.writer import EvidenceWriter
from gateway.routing.promised import Promised
from gateway.snapshot import Snapshot

log = logging.getLogger("thinkmeter.quality")

_EVERY = 300.0
"""Seconds between two looks. One takes 0.3 s of CPU for 20,000 pairs."""
_TICK = 1.0
"""The same after a change of the configuration, the head or an alarm, and while the store is being opened."""


class PromiseLook:
    """Follows the evidence in a thread, while the configuration promises something."""

    def __init__(
        self,
        writer: EvidenceWriter,
        gateway: ServingSnapshot,
        fallen: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """writer: started, and closed by its owner. gateway: tells which snapshot is in use.

        fallen: the models about whose answers an alarm of drift stands. Nothing is certified for them, and
        their pairs count from the end of the alarm on.
        """
        self._writer = writer
        self._gateway = gateway
        self._fallen = fallen
        self._task: asyncio.Task[None] | None = None
        self._told: dict[str, float | None] = {}
        """The certified price by model, as last told."""
        self._since: dict[str, float] = {}
        """Pairs of a model before this Unix time do not count."""
        self.found: list[PromiseFound] = []

    def start(self) -> None:
        """Begin to look, in the background."""
        self._task = asyncio.create_task(self._run(), name="quality-promise")

    async def stop(self) -> None:
        """Look no more. A reading under way ends by itself."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def shown(self) -> list[str]:
        """What is certified, a sentence per model, for the console."""
        quality = self._gateway.snapshot.settings.quality
        return [told(found, quality) for found in self.found] if quality else []

    async def _run(self) -> None:
        while True:
            await self.look()
            router, fallen = self._gateway.snapshot.router, self._fallen()
            left = _TICK if self._writer.engine is None else _EVERY
            while left > 0 and (router, fallen) == (self._gateway.snapshot.router, self._fallen()):
                await asyncio.sleep(_TICK)
                left -= _TICK

    async def look(self) -> None:
        """Look once. A store that is away changes nothing."""
        snapshot, engine = self._gateway.snapshot, self._writer.engine
        if snapshot.settings.quality is None:
            self.found = []
        elif engine is not None:
            self._since |= dict.fromkeys(self._fallen(), time.time())
            try:
                self.found = await asyncio.to_thread(read_promises, engine, snapshot, dict(self._since))
            except EvidenceUnavailable as error:
                log.warning("the promise of quality was not looked at: %s", error)
                return
            self._act(snapshot)

    def _act(self, snapshot: Snapshot) -> None:
        """Say what is new, and let the certified prices act in the snapshot that they were read for."""
        quality = snapshot.settings.quality
        if quality is None:
            return
        for found in self.found:
            if self._told.get(found.model, ...) != found.price:
                self._told[found.model] = found.price
                log.warning("%s", told(found, quality))
        if quality.until == "safe":
            prices = {one.model: one.price for one in self.found if one.price is not None}
            snapshot.router.promised = Promised(quality.against, prices)
