"""The report in sentences and tables, for the terminal and for the page alike. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from gateway.evidence.quality import Bounded
from gateway.evidence.reporting.cells import Happening
from gateway.evidence.reporting.estimates import FEWEST_CONVERSATIONS, ArmMean, RightAgainst, Saving
from gateway.evidence.reporting.summary import Compared, SavingsReport

NOT_ENOUGH = "not enough evidence"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ReportTable(Struct, frozen=True):
    """A table of texts. The first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def headline(report: SavingsReport) -> str:
    return f"What was saved from {_date(report.since)} to {_date(report.until)} UTC"


def shown_moment(at: float) -> str:
    """A time of UTC as `thinkmeter evidence export` takes it."""
    return (_EPOCH + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S")


def _date(at: float) -> str:
    return shown_moment(at)[:16].replace("T", " ")


def day_name(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")


def saving_verdict(bounds: Bounded | None) -> str:
    """Whether an interval shows a saving, a loss, or neither."""
    if bounds is None:
        return NOT_ENOUGH
    if bounds.low > 0:
        return "saved"
    return "cost more" if bounds.high < 0 else "not shown: the interval includes zero"


def report_sentences(report: SavingsReport) -> Iterator[str]:
    """What the report says, the most important first."""
    ours, theirs = report.evidence
    if not theirs.requests:
        yield (
            f"Not enough evidence: of {report.requests:,} requests, none was held out. Without a hold-out"
            " nobody can say what would have been used without the gateway. Configure `holdout`."
        )
        return
    yield (
        f"Compared: {ours.requests:,} requests that got an adaptive tier, and {theirs.requests:,} held-out"
        " requests that got the fixed policy. A hash drew who is held out, so the arms are alike otherwise."
    )
    yield _about_tokens(report.whole.tokens)
    yield _about_right(report.whole.right)
    if report.share_changed:
        yield (
            "Caution: the held-out share changed within the period. The arms then have requests of different"
            " times, and differ by more than the policy. Report the times before and after by themselves."
        )
    if report.groups:
        yield (
            f"Each interval by {report.by} holds by itself with 95 %: of 20 such intervals, one may be wrong."
        )


def _about_tokens(saving: Saving) -> str:
    if saving.share is None:
        return _missing(saving.adaptive, saving.holdout, "Tokens", "with known tokens")
    low, high = (100 * each for each in (saving.share.low, saving.share.high))
    mean = 100 * saving.share.mean
    if saving.share.low > 0:
        begin = f"Tokens were saved: {mean:.1f} % of the completion tokens"
    elif saving.share.high < 0:
        begin = f"Tokens were not saved but added: {-mean:.1f} % more completion tokens"
        low, high = -high, -low
    else:
        begin = f"A saving of tokens is not shown: {_minus(f'{mean:+.1f}')} % of the completion tokens"
    return f"{begin} per request, with 95 % between {_minus(f'{low:.1f} and {high:.1f}')} %."


def _about_right(right: RightAgainst) -> str:
    found = right.difference
    if found is None:
        return _missing(right.adaptive, right.holdout, "Right answers", "with feedback")
    what = (
        "Adaptive answers were right more often"
        if found.low > 0
        else "Adaptive answers were right less often"
        if found.high < 0
        else "No difference in right answers is shown"
    )
    return (
        f"{what}: {point_text(found)} percentage points against the fixed policy, of"
        f" {right.adaptive.requests:,} and {right.holdout.requests:,} judged answers. Only answers with"
        " feedback count, so this holds for those that are judged."
    )


def _missing(ours: ArmMean, theirs: ArmMean, what: str, known: str) -> str:
    return (
        f"{what}: not enough evidence, with {ours.clusters:,} adaptive and {theirs.clusters:,} held-out"
        f" conversations {known}; each needs {FEWEST_CONVERSATIONS} at least."
    )


def savings_table(report: SavingsReport) -> ReportTable:
    """What the arms need per request, and what that adds up to."""
    whole, money = report.whole, report.currency
    kinds = (("completion tokens", whole.tokens), (money, whole.money), ("GPU hours", whole.gpu_hours))
    columns = (
        "",
        "held out",
        "adaptive",
        "saved per request",
        "share",
        "saved in total",
        "requests",
        "verdict",
    )
    rows = [
        (name, *_saved_cells(saving), saving_verdict(saving.per_request)) for name, saving in kinds if saving
    ]
    return ReportTable("Savings", columns, rows)


def _saved_cells(saving: Saving) -> Iterator[str]:
    arms = (saving.holdout, saving.adaptive)
    yield from ("–" if arm.mean is None else _number(arm.mean, arm.mean) for arm in arms)
    yield from (signed_text(saving.per_request), share_text(saving.share), signed_text(saving.total))
    yield " + ".join(f"{arm.requests:,} (of {arm.clusters:,})" for arm in arms)


def right_table(right: RightAgainst) -> ReportTable:
    rows: list[tuple[str, ...]] = [
        (name, f"{arm.requests:,}", f"{arm.clusters:,}", _right_share(share))
        for name, arm, share in (
            ("held out", right.holdout, right.holdout_share),
            ("adaptive", right.adaptive, right.adaptive_share),
        )
    ]
    rows.append(("difference, in points", "", "", point_text(right.difference)))
    return ReportTable("Right answers", ("", "judged", "conversations", "right"), rows)


def _right_share(bounds: Bounded | None) -> str:
    if bounds is None:
        return "–"
    return f"{100 * bounds.mean:.1f} % ({100 * bounds.low:.1f} to {100 * bounds.high:.1f})"


def groups_table(report: SavingsReport) -> ReportTable:
    """The arms by key, team or model."""
    columns: tuple[str, ...] = (report.by or "", "requests (held out + adaptive)", "saved tokens", "share")
    whole = report.whole
    columns += (f"saved {report.currency}",) if whole.money else ()
    columns += ("saved GPU hours",) if whole.gpu_hours else ()
    return ReportTable(
        f"By {report.by}",
        (*columns, "right, in points (judged)"),
        [tuple(_group_cells(group)) for group in report.groups],
    )


def _group_cells(group: Compared) -> Iterator[str]:
    tokens, right = group.tokens, group.right
    yield group_name(group)
    yield f"{tokens.holdout.requests:,} + {tokens.adaptive.requests:,}"
    yield signed_text(tokens.total)
    yield share_text(tokens.share)
    for saving in (group.money, group.gpu_hours):
        if saving:
            yield signed_text(saving.total) if saving.adaptive.requests else "–"
    yield f"{point_text(right.difference)} ({right.holdout.requests:,} + {right.adaptive.requests:,})"


def group_name(group: Compared) -> str:
    return group.group or "(none)"


def budget_table(report: SavingsReport) -> ReportTable:
    """Price and budget by day."""
    columns = ("day", "requests", "completion tokens", "mean price", "highest price", "shortened", "refused")
    rows = [
        (
            *(day_name(day.day), f"{day.requests:,}", f"{day.completion_tokens:,}"),
            *(f"{day.price:.4g}", f"{day.highest_price:.4g}", f"{day.shortened:,}", f"{day.refused:,}"),
        )
        for day in report.days
    ]
    return ReportTable("Price and budget by day", columns, rows)


def about_minimums(report: SavingsReport) -> str:
    """Whether floors held for the requests that have one."""
    found = report.minimums
    if not found.requests:
        return "No request had a minimum."
    kept = found.requests - found.below
    return (
        f"{found.requests:,} requests had a minimum, from the model, the key, a rule or the client's pin."
        f" The tier was at or above it for {kept:,}, and below it for {found.below:,}."
        f" {found.refused:,} ended with status 429, which is a full budget or a busy replica,"
        f" and {found.failed:,} with another error."
    )


def evidence_table(report: SavingsReport) -> ReportTable:
    """How much each arm rests on."""
    columns = ("arm", "requests", "conversations", "with known tokens", "judged", "failed")
    rows = [
        (
            *(each.arm, f"{each.requests:,}", f"{each.conversations:,}"),
            *(_part(number, each.requests) for number in (each.counted, each.judged, each.failed)),
        )
        for each in report.evidence
    ]
    return ReportTable("Size of the evidence", columns, rows)


def _part(number: int, of: int) -> str:
    return f"{number:,} ({100 * number / of:.1f} %)" if of else f"{number:,}"


def left_out_table(report: SavingsReport) -> ReportTable:
    rows = [(f"{each.requests:,}", each.why) for each in report.left_out]
    return ReportTable(
        "Left out of the comparison", ("requests", "why"), rows or [("0", "none was left out")]
    )


def happening_lines(name: str, found: Sequence[Happening] | None) -> list[str]:
    """Promotions or alarms, one per line; or that there are none."""
    if found is None:
        return [f"{name}: this store keeps no log of them."]
    if not found:
        return [f"{name}: none in this period."]
    return [f"{name}: {_date(each.at)} {each.what}" for each in found]


def signed_text(bounds: Bounded | None) -> str:
    """An amount with its sign and interval: `+120 (+80 to +160)`."""
    if bounds is None:
        return NOT_ENOUGH
    size = max(abs(bounds.low), abs(bounds.high))
    mean, low, high = (_number(value, size, "+") for value in (bounds.mean, bounds.low, bounds.high))
    return f"{mean} ({low} to {high})"


def share_text(bounds: Bounded | None) -> str:
    """A signed share with its interval: `+12.0 % (+8.1 to +15.7)`."""
    if bounds is None:
        return NOT_ENOUGH
    mean, low, high = (f"{100 * value:+.1f}" for value in (bounds.mean, bounds.low, bounds.high))
    return _minus(f"{mean} % ({low} to {high})")


def point_text(bounds: Bounded | None) -> str:
    """A difference of shares in percentage points, with its interval."""
    return share_text(bounds).replace(" %", "")


def _number(value: float, size: float, sign: str = "") -> str:
    """A number with three digits for numbers of this size."""
    decimals = 0 if not size else min(max(2 - math.floor(math.log10(abs(size))), 0), 12)
    return _minus(f"{value:{sign},.{decimals}f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")
