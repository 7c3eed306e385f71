"""The commands `serve`, `check`, `probe`, `route`, `hash-key` and `version`."""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.table import Table

from gateway import __version__
from gateway.cli.terminal import (
    ConfigArgument,
    build_snapshot,
    err,
    load_settings,
    out,
    read_snapshot,
    refuse_example_keys,
)
from gateway.config.access import key_digest
from gateway.config.examples import example_keys
from gateway.config.loader import dotted, reachable_example_keys, read_file
from gateway.config.promises import broken_promises

if TYPE_CHECKING:
    from gateway.config.evidence import ShadowSettings
    from gateway.routing.call import Call, Plan
    from gateway.routing.decision import Decision
    from gateway.snapshot import Snapshot

commands = typer.Typer()


@commands.command()
def serve(
    config: ConfigArgument,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default server.port.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this port; default server.workers.", min=1, max=256)
    ] = None,
) -> None:
    """Run the gateway."""
    from gateway.app import Gateway
    from gateway.cli.worker_process import Place
    from gateway.cli.workers import supervise
    from gateway.telemetry.log_writer import StandardStreams

    streams = StandardStreams.of_process()
    streams.take_logging()
    raw, snapshot = read_snapshot(config)
    settings = snapshot.settings
    server = settings.server
    host = server.host if host is None else host
    refuse_example_keys(config, settings, host)
    if server.tracing and not find_spec("opentelemetry"):
        err.print(
            "server.tracing needs the `otel` extra: pip install '.[otel]' in the checkout", markup=False
        )
        raise typer.Exit(2)
    for note in snapshot.notes:
        logging.getLogger("thinkmeter.head").warning("%s", note)
    config_log = logging.getLogger("thinkmeter.config")
    for sentence in broken_promises(settings):
        config_log.warning("%s", sentence)
    for place in example_keys(settings):
        config_log.warning("%s: a key like change-me of the examples, which everybody knows", dotted(place))
    if settings.counts_tokens and not settings.redis.url:
        _check_server()
    port = server.port if port is None else port
    workers = server.workers if workers is None else workers
    if workers > 1:
        raise typer.Exit(supervise(config, raw, settings, Place(host, port, workers), streams))
    Gateway(snapshot, config, streams=streams).run(host, port)


def _check_server() -> None:
    """Say at once, and in a line, that there is no Redis to start."""
    from gateway.store.embedded import RedisServerError, binary

    try:
        binary()
    except RedisServerError as error:
        err.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from None


@commands.command()
def check(config: ConfigArgument) -> None:
    """Say what is wrong with a configuration, with the line; exit status 2 if anything is."""
    snapshot = build_snapshot(config)
    settings = snapshot.settings
    columns = ("model", "family", "replicas", "tiers (thinking + answer)", "rungs (thinking)")
    table = Table(*columns, title=f"{config}: valid")
    for name, model in settings.models.items():
        tiers = ", ".join(
            f"{tier} {t.thinking}+{t.answer or '∞'}" for tier, t in settings.tiers_of(model).items()
        )
        rungs = " ".join(map(str, snapshot.router.targets[name].ladder.thinking))
        table.add_row(name, model.family, str(len(model.replicas)), tiers, rungs)
    out.print(table)
    out.print(f"{len(settings.keys)} API keys, {len(settings.rules)} rules, price {settings.price:g}")
    out.print(f"head {snapshot.router.predictor.version}")
    if settings.shadow:
        out.print(_shadow_cost(settings.shadow), soft_wrap=True, highlight=False)
    for line in _promises(snapshot):
        out.print(line, soft_wrap=True, highlight=False)
    known = reachable_example_keys(settings, lambda: read_file(config), settings.server.host)
    for note in (*known, *broken_promises(settings), *snapshot.notes):
        out.print(f"note: {note}", style="yellow", soft_wrap=True, highlight=False)


def _promises(snapshot: Snapshot) -> list[str]:
    """What is certified of the promise of quality, and how much evidence is missing, by model."""
    quality, evidence = snapshot.settings.quality, snapshot.settings.evidence
    if quality is None or evidence is None:
        return []
    from gateway.evidence.database import EvidenceUnavailable, store_as_it_is
    from gateway.evidence.quality_promise.pairs import told
    from gateway.evidence.quality_promise.reading import read_promises

    try:
        with store_as_it_is(evidence) as engine:
            return [told(found, quality) for found in read_promises(engine, snapshot)]
    except EvidenceUnavailable as error:
        return [f"quality: the store of evidence cannot be read: {error}"]


def _shadow_cost(shadow: ShadowSettings) -> str:
    """What shadow pairs may cost, in a sentence."""
    from gateway.evidence.shadows.drawing import most_tokens_a_day

    most = most_tokens_a_day(shadow.budget)
    judge = ", those of the judge included" if shadow.judge else ""
    against = f"{int(shadow.against):,} thinking tokens" if shadow.against.isdecimal() else shadow.against
    return f"shadow: {shadow.share:.3g} of requests again at {against}, at most {most:,} tokens a day{judge}"


@commands.command()
def probe(config: ConfigArgument) -> None:
    """Ask every backend what it really does: alive, model, thinking off, tiny budgets, tools, each effort."""
    from gateway.cli.probe import CONSTRAINED_CHECKS, probe_all
    from gateway.cli.probe_judgments import FAILED, recommend

    settings = load_settings(config)
    findings = asyncio.run(probe_all(settings))
    table = Table("model", "backend", "check", "result", "detail")
    for finding in findings:
        style = "red" if finding.result in FAILED else None
        table.add_row(
            finding.model, finding.backend, finding.check, finding.result, finding.detail, style=style
        )
    out.print(table)
    allowed = frozenset(name for name, model in settings.models.items() if model.budget_with_tools)
    for line in recommend(findings, CONSTRAINED_CHECKS, allowed):
        out.print(line, soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(1 if any(finding.result in FAILED for finding in findings) else 0)


@commands.command()
def route(
    config: ConfigArgument,
    prompt: Annotated[str, typer.Argument(help="The prompt to decide about.")],
    model: Annotated[str | None, typer.Option(help="The model, or model:tier; default the first.")] = None,
) -> None:
    """Show the decision for a prompt, without asking any backend."""
    from gateway.errors import GatewayError
    from gateway.openai_api.endpoints import CHAT
    from router_model.encoders.base import EncoderError

    snapshot = build_snapshot(config)
    if snapshot.router.embedder:
        try:
            snapshot.router.embedder.encode_all([prompt])
        except EncoderError as error:
            err.print(f"no embedding: {error}", style="yellow", markup=False)
    name = model or next(iter(snapshot.settings.models))
    body = orjson.dumps({"model": name, "messages": [{"role": "user", "content": prompt}]})
    try:
        call = snapshot.call(CHAT, None, {}, CHAT.parse(body))
    except GatewayError as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from None
    decision = asyncio.run(_plan(snapshot, call)).decision
    if decision is None:
        raise RuntimeError("a chat always has a tier")
    out.print(_estimates(decision))
    given = f"{decision.thinking:,} thinking tokens"
    price = f"price {decision.price:g} per 1,000 tokens"
    out.print(f"{given}, difficulty {decision.difficulty:.3f}, {price}", highlight=False)


def _estimates(decision: Decision) -> Table:
    """The named tiers and the chosen rung, with their estimates."""
    from router_model.allocation import value

    rungs, names = decision.rungs, list(decision.correct)
    title = f"{decision.tier}: {decision.reason}"
    table = Table("tier", "thinking", "P(right)", "tokens", "value", title=title)
    for at in sorted({*rungs.named, decision.rung}):
        name = names[rungs.named.index(at)] if at in rungs.named else ""
        correct, tokens = rungs.correct[at], rungs.tokens[at]
        worth = value(correct, tokens, decision.price)
        row = (name, f"{rungs.thinking[at]:,}", f"{correct:.3f}", f"{tokens:.0f}", f"{worth:.3f}")
        table.add_row(*row, style="bold" if at == decision.rung else None)
    return table


async def _plan(snapshot: Snapshot, call: Call) -> Plan:
    from gateway.budget.ledger import open_budget
    from gateway.budget.observer import NullObserver
    from gateway.pipeline.serve import Pipeline
    from gateway.upstream.dispatch import Upstream

    pipeline = Pipeline(snapshot, Upstream(), open_budget(snapshot.settings, NullObserver()))
    return await pipeline.plan(call, snapshot)


@commands.command("hash-key")
def hash_key() -> None:
    """Read an API key from standard input and print the hash for `keys[].hash`."""
    secret = sys.stdin.readline().strip()
    if not secret:
        err.print("nothing on standard input")
        raise typer.Exit(2)
    typer.echo(key_digest(secret))


@commands.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
