"""One stretch of asking: opens the connections to the replicas and the budget, asks, and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct

from gateway.budget.ledger import open_budget
from gateway.budget.limits import BudgetLimits, Limit
from gateway.budget.observer import NullObserver
from gateway.evidence.measuring.asking import Asking, AskingTerms, RunStopped
from gateway.evidence.measuring.journal import AnswerJournal, MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.work import AnswerKey, MeasuredRung
from gateway.routing.call import Target
from gateway.snapshot import Snapshot
from gateway.store.embedded import RedisServerError
from gateway.upstream.dispatch import Upstream
from gateway.upstream.health import HealthChecks

_SYNC_SECONDS = 5.0
_PER_REPLICA, _MOST = 32, 256


class BudgetChoiceError(ValueError):
    """The budget cannot be the one to count under."""


class MeasuredModel(Struct, frozen=True):
    """The model that is measured, and with what."""

    snapshot: Snapshot
    target: Target
    prompts: Mapping[str, MeasuredPrompt]
    rungs: Mapping[str, MeasuredRung]


def usual_concurrency(snapshot: Snapshot, model: str) -> int:
    """Requests at a time: 32 for each replica, 256 at most. vLLM works on 256 at most by default."""
    return min(_PER_REPLICA * len(snapshot.pools[model].backends), _MOST)


def limits_of(budgets: BudgetLimits, option: str | None, model: str) -> tuple[Limit, ...]:
    """The budget that an option names: NAME of a global or model budget, or NAME/HOLDER.

    Raises: BudgetChoiceError.
    """
    if option is None:
        return ()
    name, _, holder = option.partition("/")
    holders = [other for known, other in budgets.limits if known == name]
    if not holders:
        names = ", ".join(sorted({known for known, _ in budgets.limits})) or "none"
        raise BudgetChoiceError(f"no budget {name!r}; there are {names}")
    found = [each for each in ([holder] if holder else ["*", model]) if each in holders]
    if not found:
        raise BudgetChoiceError(f"name whose budget it is: {', '.join(f'{name}/{each}' for each in holders)}")
    return (budgets.limits[name, found[0]],)


async def collect(
    model: MeasuredModel,
    journal: AnswerJournal,
    keys: Sequence[AnswerKey],
    terms: AskingTerms,
    took: Callable[[MeasuredAnswer], None],
) -> None:
    """Ask for these answers and keep them in the journal. took: is told of each.

    Raises: RunStopped.
    """
    snapshot, name = model.snapshot, model.target.name
    upstream = Upstream()
    backends = [(pool, backend) for pool, backend in snapshot.backends() if pool.model == name]
    checks = HealthChecks(upstream, lambda: backends)
    ledger = open_budget(snapshot.settings, NullObserver()) if terms.limits else None

    def keep(answer: MeasuredAnswer) -> None:
        journal.add(answer)
        took(answer)

    syncing = asyncio.create_task(_keep_syncing(journal))
    try:
        await checks.start()
        if not checks.ready:
            raise RunStopped(f"no replica of {name} is healthy: {'; '.join(checks.causes())}")
        if ledger is not None:
            try:
                await ledger.start()
            except RedisServerError as error:
                raise RunStopped(str(error)) from None
        asking = Asking(snapshot, model.target, upstream, terms, keep, ledger=ledger)
        await asking.ask(keys, model.prompts, model.rungs)
    finally:
        syncing.cancel()
        with suppress(asyncio.CancelledError):
            await syncing
        await checks.stop()
        if ledger is not None:
            await ledger.stop()
        upstream.close()


async def _keep_syncing(journal: AnswerJournal) -> None:
    """Have the disk write the answers now and then, so that a crash of the machine costs little."""
    while True:
        await asyncio.sleep(_SYNC_SECONDS)
        await asyncio.get_running_loop().run_in_executor(None, journal.sync)
