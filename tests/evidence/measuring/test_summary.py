"""What is said about a run: figures, sentences, problems, and the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from gateway.evidence.measuring.ceiling import CurvePoint
from gateway.evidence.measuring.outcomes import MeasuredOutcomes
from gateway.evidence.measuring.page import page_of
from gateway.evidence.measuring.summary import HeadSummary, RunSummary, summarise_run
from gateway.evidence.measuring.wording import cells, problems, sentences, title
from tests.evidence.measuring.making import RUNGS, answer, grade, prompts


def run(count: int = 40, samples: int = 2, **given: Any) -> RunSummary:
    """Half of the prompts need the long rung, which is 10 times as long. The others are right at both."""
    correct = np.ones((count, 2, samples))
    correct[: count // 2, 0] = 0.0
    tokens = np.broadcast_to(np.array([20.0, 200.0])[:, None], correct.shape).astype(float)
    terms: dict[str, Any] = {"model": "tiny", "grader": "exact", "difference": 0.02}
    lists: dict[str, Any] = {"answers": [], "failed": [], "grades": []}
    outcomes = MeasuredOutcomes(tuple(prompts(count)), RUNGS, correct, tokens)
    merged = lists | given
    rest = {name: value for name, value in given.items() if name not in lists}
    return summarise_run(outcomes, *(merged[name] for name in lists), **(terms | rest))


def test_figures() -> None:
    """Shares, tokens, differences of the same prompts, and what a perfect choice could gain."""
    summary = run()
    direct, long = summary.rungs

    assert (direct.right.mean, long.right.mean) == (0.5, 1.0)
    assert (direct.tokens.mean, long.tokens.mean) == (20, 200)
    assert direct.against is not None
    assert direct.saved is not None
    assert direct.against.mean == -0.5
    assert direct.saved.mean == 180
    assert (long.against, long.saved, long.needed) == (None, None, None)
    router = summary.router
    assert router is not None
    assert (router.tokens, router.fixed, router.highest, router.lowest) == pytest.approx(
        (110, 0.75, 1.0, 1.0)
    )
    assert (router.best_tokens, router.fewest, router.fewest_sure) == pytest.approx((200, 110, 110))


def test_sentences() -> None:
    """The gain, the tokens saved, and the prompts that are still needed."""
    said = " ".join(sentences(run()))

    assert "At 110 tokens per prompt, fixed rungs get 75.0 % right." in said
    assert "would gain between 25.0 and 25.0 points." in said
    assert "it would need 110 tokens instead of 200: at most 45 % less; without luck 45 %." in said
    assert re.search(r"To see a difference of 2 points .*, [\d,]+ prompts are needed .*: [\d,]+ more\.", said)
    assert "includes luck: --samples 2" in " ".join(sentences(run(samples=1)))
    assert "There are enough prompts" in " ".join(sentences(run(difference=0.5)))
    assert "from 20 prompts on" in " ".join(sentences(run(count=10)))


def test_agreement_is_named_as_what_it_is() -> None:
    """Nobody can take agreement for correctness."""
    assert "no measure of correctness" in next(sentences(run(grader="agreement")))
    assert "no measure of correctness" in next(sentences(run(grader="agreement:number")))


def test_cells() -> None:
    """A row of the table has every figure with its interval."""
    row = cells(run().rungs[0])

    assert row[:2] == ("direct", "0")
    assert row[2].startswith("50.0 % (35")
    assert row[3] == "20 (20 to 20)"
    assert row[4].startswith("−50.0 (−6")
    assert row[6] == "40"


def test_problems() -> None:
    """Everything that is missing in the figures is said, with how often and an example."""
    answers = [
        answer("p0", finish="length"),
        answer("p1", text=" \n"),
        answer("p2", "long", reasoning=300),
        answer("p3", tokens=None),
        answer("p4", budget_sent=False),
    ]
    failed = [
        answer("p5", error="backend_timeout: too long"),
        answer("p6", error="backend_timeout: too long"),
    ]
    grades = [grade("p0", score=None, note="no number"), grade("p1"), grade("p2", score=None)]

    said = list(problems(run(answers=answers, failed=failed, grades=grades, missing=3)))

    assert said == [
        "3 answers have not been asked for yet; run the same command to go on.",
        "2 without an answer, such as p5: backend_timeout: too long",
        "1 not graded, such as p0: no number",
        "1 not graded, such as p2: no reason given",
        "1 left out, because the backend did not count their tokens.",
        (
            "1 answers came from a backend that refuses thinking budgets, so their rungs may not differ:"
            " see `thinkmeter probe`."
        ),
        "direct: 1 answers have no text; they count as wrong.",
        "direct: 1 answers were cut at the length limit of the tier.",
        "long: 1 thoughts are longer than 256 tokens: see `thinkmeter probe`.",
    ]
    assert list(problems(run())) == []


def test_position_bias_of_a_judge() -> None:
    """The page and the terminal say how far a judge can be trusted. Other graders have no such sentence."""
    said: dict[str, Any] = {"by": "judge:u#m", "verdicts": ("1", "1")}
    grades = [grade(f"p{n}", **(said if n < 10 else said | {"verdicts": ("1", "2")})) for n in range(40)]
    summary = run(grades=grades, grader="judge:u#m")

    sentence = (
        "The judge preferred the same position in both orders, so not the same answer, in 25.0 %"
        " (14.2 to 40.2) of 40 pairs: the first in 10, the second in 0. Such pairs count as draws."
    )
    assert sentence in list(sentences(summary))
    assert sentence in _Page(page_of(summary, "")).text
    assert not any("judge" in each for each in sentences(run()))


class _Page(HTMLParser):
    """Collects the tags, the attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page() -> None:
    """The page has the sentences and the figures, draws the curves, and loads nothing."""
    head = HeadSummary(("The new head is kept.",), (CurvePoint(20, 0.5), CurvePoint(150, 1.0)))
    summary = run(head=head, missing=1)
    page = _Page(page_of(summary, "2026-11-27"))

    for said in (
        *sentences(summary),
        *problems(summary),
        title(summary),
        "The new head is kept.",
        "2026-11-27",
    ):
        assert said in page.text
    for rung in summary.rungs:
        assert all(cell in page.text for cell in cells(rung))
    assert page.tags.count("polyline") == 4
    assert page.tags.count("circle") == 2
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "url(" not in page_of(summary, "")


def test_page_shows_names_as_they_are() -> None:
    """A name from a file of prompts cannot become a part of the page."""
    evil = "<script>alert(1)</script>"
    html = page_of(run(model=evil, failed=[answer(evil, error=evil)]), "")

    assert evil not in html
    assert _Page(html).text.count(evil) >= 3


def test_page_without_outcomes() -> None:
    """A run in which nothing could be graded has a page too."""
    summary = run(count=0)

    assert "0 prompts" in _Page(page_of(summary, "")).text
    assert [cells(rung)[2] for rung in summary.rungs] == ["–", "–"]
