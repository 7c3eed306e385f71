"""Everything that is built from one configuration, as one immutable value.

A reload builds a new snapshot and replaces the old one in one assignment. A request keeps the snapshot that
was current when it began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

from gateway.budget.limits import BudgetLimits
from gateway.config.access import Key
from gateway.config.evidence import PREVIOUS_HEAD
from gateway.config.hooks import load_hook
from gateway.config.loader import ConfigError, Problem, load, parse_file
from gateway.config.settings import BASELINE, Settings
from gateway.http.framing import RequestHead
from gateway.http.headers import FORWARDED, SCHEDULING, passing
from gateway.openai_api.constraints import constrains_answer
from gateway.openai_api.endpoints import Endpoint
from gateway.openai_api.requests import Request
from gateway.openai_api.scheduling import SCHEDULING_FIELDS, without_scheduling
from gateway.routing.call import Call, Target
from gateway.routing.router import Router
from gateway.routing.senders import Sender
from gateway.routing.tiers import TierLadder
from gateway.upstream.pool import Backend, Pool, pools_of
from router_model.artifact import ArtifactError, PackedHead
from router_model.encoders.base import Source
from router_model.head import Head, lacks, load_named
from router_model.heuristic import HeuristicBaseline
from router_model.predictor import Evidence, Predictor

log = logging.getLogger("thinkmeter.heads")

_REMEMBERED_EMBEDDINGS = 4096  # number of prompts whose embeddings an encoder caches
_NO_KERNEL = (
    "NumPy computes the head's estimates, which takes some 0.2 ms of CPU per request: the compiled kernel is"
    " missing, because no C compiler worked when Thinkmeter was installed"
)


class HeadUnfit(Exception):  # noqa: N818 - named after what was found
    """A promoted head cannot serve a configuration; the text says why."""


@dataclass(frozen=True)
class Snapshot:
    """The settings, router, budgets and backends of one configuration."""

    settings: Settings
    router: Router
    budgets: BudgetLimits
    pools: Mapping[str, Pool]
    """The replicas of every model. Their health, breakers and load change while the snapshot is in use."""
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    """What the head's estimates rest on, by model; models with one tier have none."""
    notes: tuple[str, ...] = ()
    """Warnings about the head's estimates, one sentence each."""
    previous_head: Router | None = None
    """The router before the last reload that changed the head, if `shadow` compares with it."""
    promoted: PackedHead | None = None
    """The head from the store that decides in place of the one in the settings."""
    number: int = field(default_factory=count().__next__, compare=False)
    """Differs between snapshots."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a configuration file and build everything from it. This can take seconds.

        Raises: ConfigError.
        """
        return cls.build(*load(path))

    @classmethod
    def read(cls, raw: bytes, promoted: PackedHead | None = None) -> Self:
        """Build everything from the bytes of a configuration file. This can take seconds.

        promoted: the head that decides. If it does not fit a new configuration, the one of the file does.

        Raises: ConfigError.
        """
        settings, digest = parse_file(raw)
        if promoted is not None:
            try:
                return cls.build(settings, digest, promoted)
            except HeadUnfit as error:
                log.warning("the head of the configuration decides: %s", error)
        return cls.build(settings, digest)

    @classmethod
    def build(cls, settings: Settings, digest: str, promoted: PackedHead | None = None) -> Self:
        """Open the head of the settings and check that it can predict for every model.

        digest: names the configuration in decisions. promoted: a head to decide in its place.

        Raises: ConfigError; HeadUnfit, if the promoted head cannot be read, or is for other models or rungs.
        """
        notes: list[str | None] = []
        evidence = {}
        _try_hooks(settings)
        try:
            predictor = _open_head(settings)
            if promoted is not None:
                predictor = _unpacked(promoted, settings, predictor)
            if isinstance(predictor, Head) and predictor.kernel is None:
                notes.append(_NO_KERNEL)
            router = Router(settings, predictor, digest)
            for name in settings.models:
                ladder = router.targets[name].ladder
                predictor.predict("", name, ladder.lengths)
                if isinstance(predictor, Head) and len(ladder.names) > 1:
                    notes.append(predictor.caveat(name, ladder.named_lengths))
                    evidence[name] = predictor.evidence(name, ladder.named_lengths)
        except ArtifactError as error:
            raise ConfigError([Problem(None, "head", str(error))]) from None
        return cls(
            settings,
            router,
            BudgetLimits(settings),
            pools_of(settings),
            evidence,
            tuple(filter(None, notes)),
            promoted=promoted,
        )

    def keeping(self, previous: Snapshot) -> Snapshot:
        """This snapshot with the health, breakers and load of those replicas that `previous` has too.

        Where shadow pairs compare with the head before, also with that. What was certified stays, unless the
        promise, the price, the rungs or the head have changed.
        """
        shadow, before = self.settings.shadow, None
        if shadow and shadow.against == PREVIOUS_HEAD:
            same = self.router.predictor.version == previous.router.predictor.version
            before = previous.previous_head if same else previous.router
        self.router.valve = previous.router.valve
        if self._promises_like(previous):
            self.router.promised = previous.router.promised
        return replace(self, pools=pools_of(self.settings, previous.backends()), previous_head=before)

    def _promises_like(self, previous: Snapshot) -> bool:
        """Whether what was certified before still holds."""

        def terms(one: Snapshot) -> tuple[object, ...]:
            ladders = {name: (to.ladder.thinking, to.ladder.named) for name, to in one.router.targets.items()}
            return one.settings.quality, one.settings.price, one.router.predictor.version, ladders

        return terms(self) == terms(previous)

    def backends(self) -> list[tuple[Pool, Backend]]:
        """Every replica with its pool."""
        return [(pool, backend) for pool in self.pools.values() for backend in pool.backends]

    def sender(self, head: RequestHead) -> Sender:
        """Who sends a request. Raises: InvalidApiKey."""
        known: Sender | None = head.shared.get("sender")
        if known is None or known.snapshot != self.number:
            known = head.shared["sender"] = self._sender(head)
        return known

    def _sender(self, head: RequestHead) -> Sender:
        key, header = self.router.identify(head.named), self.settings.affinity_header
        allowed = FORWARDED.union(name.encode() for name in self.settings.forward_headers)
        if self._schedules(key):
            allowed |= SCHEDULING
        return Sender(
            self.number,
            key,
            key.name if key else None,
            head.named.get(header.lower().encode(), b"").decode("latin-1") or None if header else None,
            [header for header in passing(head.headers, allowed) if header[0] != b"x-request-id"],
        )

    def _schedules(self, key: Key | None) -> bool:
        """Whether a client may order and place its requests at a backend."""
        return self.settings.client_scheduling == "keep" or (key is not None and key.scheduling)

    def call(
        self,
        endpoint: Endpoint,
        key: Key | None,
        headers: Mapping[bytes, bytes],
        request: Request,
        body: bytes = b"",
    ) -> Call:
        """Admit a request: find its model, its backends and its budgets.

        Raises: ModelNotFound, ModelNotAllowed, InvalidRequest.
        """
        fields = request.fields
        if self._keeps_scheduling and not SCHEDULING_FIELDS.isdisjoint(fields) and not self._schedules(key):
            request = without_scheduling(request, refuse=self.settings.client_scheduling == "refuse")
        target = self.router.target(request.model, key)
        pool = self.pools[target.name]
        if endpoint.has_template:
            target = _for_answer(target, request, pool)
        limits = self.budgets.of(key, target.name) if endpoint.counts else ()
        if limits and endpoint.default_max_tokens is not None:
            request = endpoint.with_default_length(request)
        return Call(
            endpoint,
            key,
            headers,
            request,
            body,
            target,
            pool,
            pool.context,
            limits,
            self.settings,
        )

    @cached_property
    def _keeps_scheduling(self) -> bool:
        """Whether ordering and placing belongs to the operator.

        Without keys there is one kind of client, so there is nobody whom the fields could harm.
        """
        return bool(self.settings.client_scheduling or self.settings.keys)


def _for_answer(target: Target, request: Request, pool: Pool) -> Target:
    """The target with the tiers that spoil no answer of its replicas."""
    if target.unbudgeted and pool.refuses(target.ladder.budget_fields, time.monotonic()):
        return target.unbudgeted
    if target.constrained and constrains_answer(request.fields):
        return target.constrained
    return target


def _try_hooks(settings: Settings) -> None:
    """Raises: ConfigError, if the operator's own function cannot be loaded."""
    if settings.evidence and settings.evidence.redact:
        try:
            load_hook(settings.evidence.redact)
        except ValueError as error:
            raise ConfigError([Problem(None, "evidence.redact", str(error))]) from None


def _open_head(settings: Settings) -> Predictor:
    if settings.head == BASELINE:
        return HeuristicBaseline()
    return load_named(settings.head, _source(settings), _REMEMBERED_EMBEDDINGS)


def _unpacked(packed: PackedHead, settings: Settings, replaced: Predictor) -> Head:
    """The promoted head. Raises: HeadUnfit, if it cannot be read or knows less than the one it replaces."""
    try:
        version = packed.version
        head = Head.unpack(packed, version, _source(settings), _REMEMBERED_EMBEDDINGS)
    except (ArtifactError, BadZipFile, KeyError, TypeError, ValueError) as error:
        raise HeadUnfit(f"the promoted head cannot be read: {error}") from None
    ladders = {
        name: TierLadder.of(model, settings.tiers_of(model), settings.families[model.family])
        for name, model in settings.models.items()
    }
    asked = {name: ladder.named_lengths for name, ladder in ladders.items() if len(ladder.names) > 1}
    if missing := lacks(head, asked, replaced if isinstance(replaced, Head) else None):
        raise HeadUnfit(f"the head {version} is for other models or rungs: {missing}")
    return head


def _source(settings: Settings) -> Source | None:
    encoder = settings.encoder
    key = encoder.api_key.get_secret_value() if encoder and encoder.api_key else None
    return Source(encoder.source, key=key) if encoder else None
