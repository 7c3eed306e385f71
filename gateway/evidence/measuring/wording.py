"""The result of a run in sentences and cells of tables, for the terminal and for the page alike. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gateway.evidence.measuring.intervals import Estimate
from gateway.evidence.measuring.position_bias import PositionBias
from gateway.evidence.measuring.summary import RouterSummary, RungSummary, RunSummary

COLUMNS = ("rung", "thinking", "right", "tokens", "right against the longest", "tokens saved", "prompts")
AGREEMENT = "agreement"


def cells(rung: RungSummary) -> tuple[str, ...]:
    """One row of the table of rungs."""
    return (
        rung.name,
        f"{rung.thinking:,}",
        shares(rung.right),
        amounts(rung.tokens),
        "" if rung.against is None else points(rung.against),
        "" if rung.saved is None else amounts(rung.saved),
        f"{rung.right.prompts:,}",
    )


def shares(estimate: Estimate) -> str:
    """A share with its interval: `62.5 % (52.7 to 71.4)`."""
    if not estimate.prompts:
        return "–"
    return f"{estimate.mean:.1%} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})".replace("%", " %")


def points(estimate: Estimate) -> str:
    """A difference of shares in points: `−3.0 (−6.1 to +0.1)`."""
    if not estimate.prompts:
        return "–"
    return _signed(*(100 * value for value in estimate[:3]))


def amounts(estimate: Estimate) -> str:
    """A number of tokens with its interval: `812 (743 to 881)`."""
    if not estimate.prompts:
        return "–"
    if math.isinf(estimate.low):
        return f"{estimate.mean:,.0f}"
    return f"{estimate.mean:,.0f} ({estimate.low:,.0f} to {estimate.high:,.0f})".replace("-", "−")


def _signed(mean: float, low: float, high: float) -> str:
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


def title(run: RunSummary) -> str:
    return f"{run.model}: {run.prompts:,} prompts, {_times(run.samples)}, graded by {run.grader}"


def _times(samples: int) -> str:
    return "one answer at each rung" if samples == 1 else f"{samples} answers at each rung"


def sentences(run: RunSummary) -> Iterator[str]:
    """What the run shows, what a router could gain, and what is still missing."""
    if run.grader.partition(":")[0] == AGREEMENT:
        yield (
            "“Right” here means: agrees with the majority of the longest rung. That is no measure of"
            " correctness. A rung can lose at most as many right answers as it disagrees."
        )
    yield from _about_bias(run.bias) if run.bias else ()
    yield from _about_router(run.router) if run.router else [_NO_ROUTER]
    yield from run.head.sentences if run.head else ()
    yield from _about_precision(run)


def _about_bias(bias: PositionBias) -> Iterator[str]:
    yield (
        f"The judge preferred the same position in both orders, so not the same answer, in"
        f" {shares(bias.flipped)} of {bias.pairs:,} pairs: the first in {bias.first:,}, the second in"
        f" {bias.second:,}. Such pairs count as draws."
    )


_NO_ROUTER = "What a router could gain is told from 20 prompts on that are graded at two rungs or more."


def _about_router(router: RouterSummary) -> Iterator[str]:
    gain, fixed = 100 * (router.highest - router.fixed), f"{100 * router.fixed:.1f} %"
    if router.lowest is None:
        yield (
            f"At {router.tokens:,.0f} tokens per prompt, fixed rungs get {fixed} right. A router could"
            f" gain at most {gain:.1f} points, if it knew the best rung of every prompt. With one answer at"
            " each rung, that includes luck: --samples 2 or more tells how much."
        )
    else:
        least = 100 * (router.lowest - router.fixed)
        yield (
            f"At {router.tokens:,.0f} tokens per prompt, fixed rungs get {fixed} right. A router that knew"
            f" the best rung of every prompt would gain between {least:.1f} and {gain:.1f} points. The upper"
            " end includes luck; for the lower end, each sample counts for a choice that the others made."
        )
    if router.fewest is not None and router.fewest < router.best_tokens:
        saved = f"{1 - router.fewest / router.best_tokens:.0%}".replace("%", " %")
        sure = ""
        if router.lowest is not None:
            sure = ", all of it luck perhaps"
            if router.fewest_sure is not None:
                sure = f"; without luck {1 - router.fewest_sure / router.best_tokens:.0%}".replace("%", " %")
        yield (
            f"For the {100 * router.best:.1f} % of the best fixed rung it would need"
            f" {router.fewest:,.0f} tokens instead of {router.best_tokens:,.0f}: at most {saved} less{sure}."
        )


def _about_precision(run: RunSummary) -> Iterator[str]:
    wide = [rung for rung in run.rungs if rung.needed is not None and rung.needed > rung.right.prompts]
    interest = f"{100 * run.difference:g} points"
    if wide:
        most = max(wide, key=lambda rung: rung.needed or 0)
        more = (most.needed or 0) - most.right.prompts
        yield (
            f"To see a difference of {interest} between {most.name} and the longest rung, {most.needed:,}"
            f" prompts are needed (80 % power, 5 % error): {more:,} more."
        )
    elif any(rung.needed is not None for rung in run.rungs):
        yield f"There are enough prompts to see a difference of {interest} between any rung and the longest."


def problems(run: RunSummary) -> Iterator[str]:
    """What is missing in the figures, a sentence each."""
    if run.missing:
        yield f"{run.missing:,} answers have not been asked for yet; run the same command to go on."
    for reason, count, prompt in run.failed:
        yield f"{count:,} without an answer, such as {prompt}: {reason}"
    for reason, count, prompt in run.ungraded:
        yield f"{count:,} not graded, such as {prompt}: {reason}"
    if run.uncounted:
        yield f"{run.uncounted:,} left out, because the backend did not count their tokens."
    if run.unbudgeted:
        yield (
            f"{run.unbudgeted:,} answers came from a backend that refuses thinking budgets, so their rungs"
            " may not differ: see `thinkmeter probe`."
        )
    for rung in run.rungs:
        if rung.over:
            yield (
                f"{rung.name}: {rung.over:,} thoughts are longer than {rung.thinking:,} tokens: see"
                " `thinkmeter probe`."
            )
        if rung.silent:
            yield f"{rung.name}: {rung.silent:,} answers have no text; they count as wrong."
        if rung.cut:
            yield f"{rung.name}: {rung.cut:,} answers were cut at the length limit of the tier."
