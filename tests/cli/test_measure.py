"""`thinkmeter measure` against backends on real ports: the whole way, and going on after any end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.measuring import measuring
from tests.fakes.fault import Fault
from tests.fakes.solver import Solver, hard


async def test_from_prompts_to_a_table(tmp_path: Path) -> None:
    """Every prompt is asked at every tier as serving would ask it, and the table says what became of it."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url)
        result = await run.measure()

    assert result.exit_code == 0, result.stderr
    rows = {row["id"]: row for row in run.rows()}
    assert backend.asked == Counter({(n, budget): 1 for n in range(12) for budget in (0, 16, 64, 256)})
    for number in range(12):
        row = rows[str(number)]
        assert row["prompt"] == f"solve {number}"
        assert {name: cell["correct"] for name, cell in row["tiers"].items()} == {
            name: float(budget >= hard(number))
            for name, budget in (("direct", 0), ("short", 16), ("medium", 64), ("long", 256))
        }
        assert {name: cell["thinking"] for name, cell in row["tiers"].items()}["long"] == 256
    body = next(r.json for r in backend.requests if (r.json or {}).get("thinking_token_budget") == 64)
    assert body["max_completion_tokens"] == 96
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert not body.get("stream")
    assert "12 prompts" in (tmp_path / "table.html").read_text()
    assert "medium" in result.stdout


async def test_second_run_asks_nothing(tmp_path: Path) -> None:
    """The same command again asks nothing; another grader grades the same answers; more samples are added."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url)
        await run.measure()
        first, count = run.rows(), backend.asked.total()
        await run.measure("--grade", "exact")
        again = run.rows()
        assert backend.asked.total() == count
        await run.measure("--samples", "2")

    assert again == first
    assert backend.asked.total() == 2 * count
    assert {cell["n"] for row in run.rows() for cell in row["tiers"].values()} == {2}


async def test_limit_grows(tmp_path: Path) -> None:
    """A higher limit adds prompts to those measured before."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url)
        await run.measure("--limit", "4", "--rungs", "direct,long")
        few = {row["id"] for row in run.rows()}
        await run.measure("--limit", "6", "--rungs", "direct,long")

    assert len(few) == 4
    assert few < {row["id"] for row in run.rows()}
    assert backend.asked.total() == 12


async def test_killed_at_any_moment(tmp_path: Path) -> None:
    """After kill -9 the run goes on: no answer is lost, none is asked for twice but those under way."""
    async with Solver(slow_ms=20) as backend:
        run = measuring(tmp_path, backend.url)
        kept: list[bytes] = []
        for after in (3, 12, 25):
            await run.killed(after)
            lines = run.lines()
            assert lines[: len(kept)] == kept
            kept = lines
        result = await run.measure("--concurrency", "4")

    assert result.exit_code == 0, result.stderr
    assert run.lines()[: len(kept)] == kept
    answers = Counter((each["prompt"], each["rung"], each["sample"]) for each in run.answers())
    assert len(answers) == 48
    assert set(answers.values()) == {1}
    assert backend.asked.total() <= 48 + 3 * 4
    assert len(run.rows()) == 12


async def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C keeps the answers, says how to go on, and exits with 130."""
    async with Solver(slow_ms=20) as backend:
        run = measuring(tmp_path, backend.url)
        status, said = await run.killed(8, 2)

    assert status == 130
    assert f"answers are kept in {run.journal}; the same command goes on from there" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=500), "backend_error"),
        (Fault(end="cut"), "backend_"),
        (Fault(reset=True), "backend_disconnected"),
        (Fault(garbage=40), "no chat completion"),
        (Fault(body={"object": "list"}), "no chat completion"),
        (Fault(status=400, message="I will not"), "invalid"),
    ],
)
async def test_answer_that_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, code: str
) -> None:
    """A prompt that always fails is marked, not wrong, and asked for again by the next run."""
    monkeypatch.setattr("gateway.evidence.measuring.asking._PAUSES", (0.0, 0.0))

    class Broken(Solver):
        def _fault_for(self, request):  # type: ignore[no-untyped-def]
            found = super()._fault_for(request)
            return fault if self.broken and "solve 7" in request.body.decode() else found

        broken = True

    async with Broken() as backend:
        run = measuring(tmp_path, backend.url, health={"interval": 0.2, "timeout": 10})
        result = await run.measure("--rungs", "direct,long")
        rows = {row["id"] for row in run.rows()}
        backend.broken = False
        healed = await run.measure("--rungs", "direct,long")

    assert result.exit_code == 0, result.stderr
    assert "7" not in rows
    assert len(rows) == 11
    assert "2 without an answer, such as 7: " in result.stdout
    assert code in result.stdout
    assert "without an answer" not in healed.stdout
    assert len(run.rows()) == 12


async def test_failures_that_pass(tmp_path: Path) -> None:
    """A backend that fails, is overloaded, or hangs once costs no answer: the request is sent again."""
    async with Solver() as one, Solver() as other:
        for fault in (Fault(status=503), Fault(status=429, headers={"Retry-After": "1"}), Fault(reset=True)):
            one.script(fault, times=2)
        run = measuring(tmp_path, one.url, other.url)
        result = await run.measure()

    assert result.exit_code == 0, result.stderr
    assert len(run.rows()) == 12
    assert "without an answer" not in result.stdout
    assert min(one.asked.total(), other.asked.total()) > 5


async def test_hang(tmp_path: Path) -> None:
    """A request that never ends is cut after `timeouts.total`, and another replica answers."""
    async with Solver() as one, Solver() as other:
        one.script(Fault(delay_ms=1e6), times=2)
        run = measuring(tmp_path, one.url, other.url, timeouts={"total": 0.5, "connect": 0.4})
        result = await run.measure()

    assert result.exit_code == 0, result.stderr
    assert len(run.rows()) == 12


async def test_backend_away(tmp_path: Path) -> None:
    """Without any replica it stops at once, and says why."""
    run = measuring(tmp_path, "http://127.0.0.1:1")
    result = await run.measure()

    assert result.exit_code == 1
    assert "no replica of tiny is healthy" in result.stderr
    assert "the same command goes on from there" in result.stderr


async def test_backend_that_fails_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing succeeds, it stops instead of failing thousands of prompts."""
    monkeypatch.setattr("gateway.evidence.measuring.asking._PAUSES", ())
    async with Solver() as backend:
        backend.default = Fault(status=400, message="no")
        run = measuring(tmp_path, backend.url, count=100)
        result = await run.measure("--concurrency", "4")

    assert result.exit_code == 1
    assert "the last 20 requests all failed: " in result.stderr
    assert len(backend.requests) < 40


async def test_other_arguments_do_not_mix(tmp_path: Path) -> None:
    """Answers of other request fields or of another file of prompts are refused."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url)
        await run.measure("--rungs", "direct")
        hotter = await run.measure("--rungs", "direct", "--temperature", "0.5")
        run.prompts.write_text('{"prompt": "solve 99", "answer": "99"}\n')
        other = await run.measure("--rungs", "direct")

    assert (hotter.exit_code, other.exit_code) == (2, 2)
    assert "another request fields" in hotter.stderr
    assert "another prompts" in other.stderr


async def test_request_fields(tmp_path: Path) -> None:
    """Fields are sent with every request; those that would change what is measured are refused."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url, count=1)
        sent = await run.measure("--temperature", "0.5", "--fields", '{"top_p": 0.9}')
        refused = [
            await run.measure("--fields", fields)
            for fields in ('{"stream": true}', '{"reasoning_effort": "low"}', "[]", "{", '{"max_tokens": 0}')
        ]

    assert sent.exit_code == 0, sent.stderr
    asked = [request.json for request in backend.requests if request.json]
    assert all(body["temperature"] == 0.5 and body["top_p"] == 0.9 for body in asked)
    assert [result.exit_code for result in refused] == [2] * 5


async def test_dry_run(tmp_path: Path) -> None:
    """A dry run says what it would take, and neither asks nor writes."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url)
        result = await run.measure("--dry-run")

    assert result.exit_code == 0
    assert "48 answers to ask for, about " in result.stderr
    assert backend.requests == []
    assert not run.journal.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rungs", "huge"), "no rung 'huge'"),
        (("--model", "other"), "there are tiny"),
        (("--budget", "none"), "no budget 'none'"),
        (("--grade", "vibes"), "`vibes` is no grader"),
        (("--out", "table.csv"), "must end in .jsonl"),
    ],
)
async def test_bad_options(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """A mistake is named before anything is asked."""
    run = measuring(tmp_path, "http://127.0.0.1:1")
    result = await run.measure(*options)

    assert result.exit_code == 2
    assert said in result.stderr


async def test_never_overwrites_what_it_did_not_write(tmp_path: Path) -> None:
    """Neither the prompts nor a table without its answers is overwritten."""
    run = measuring(tmp_path, "http://127.0.0.1:1")
    own = await run.measure("--out", str(run.prompts))
    run.table.write_text("precious")
    other = await run.measure()

    assert (own.exit_code, other.exit_code) == (2, 2)
    assert run.table.read_text() == "precious"


async def test_prompts_without_references(tmp_path: Path) -> None:
    """They are graded by agreement, which is said; a grader that needs references refuses before asking."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url)
        run.prompts.write_text("\n".join(json.dumps({"prompt": f"solve {n}"}) for n in range(6)))
        refused = await run.measure("--grade", "number")
        assert backend.asked.total() == 0
        result = await run.measure()

    assert refused.exit_code == 2
    assert "6 of 6 prompts cannot be graded" in refused.stderr
    assert "no measure of correctness" in result.stdout
    right = {
        (row["prompt"], name): cell["correct"] for row in run.rows() for name, cell in row["tiers"].items()
    }
    assert all(right[f"solve {n}", "long"] == 1 for n in range(6))
    assert right["solve 1", "direct"] == 0


async def test_constant_number_of_requests(tmp_path: Path) -> None:
    """As many requests as asked for are under way at a time, and no more."""
    most = 0

    class Watched(Solver):
        def changed(self) -> None:
            nonlocal most
            most = max(most, self.in_flight)
            super().changed()

    async with Watched(slow_ms=30) as backend:
        run = measuring(tmp_path, backend.url, count=20)
        await run.measure("--concurrency", "7", "--rungs", "direct,long")

    assert most == 7
    assert asyncio.get_running_loop() is not None
