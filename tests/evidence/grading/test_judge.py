"""The judge, and the endpoint that it is behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gateway.config.evidence import JudgeSettings
from gateway.evidence.grading.asking_judge import ask_judge
from gateway.evidence.grading.grade import ModelAnswer
from gateway.evidence.grading.judge import JudgeFailed, JudgeGrader
from gateway.evidence.grading.verdict import JudgeMessage


def prefers(word: str) -> JudgeGrader:
    """A judge that prefers the answer with a word in it, else the first one."""

    def ask(messages: list[JudgeMessage]) -> str:
        text = messages[1]["content"]
        second = text.partition("answer 2 begins")[2]
        return f"VERDICT: {2 if word in second else 1}"

    return JudgeGrader(ask)


def test_compares_in_both_orders() -> None:
    assert prefers("good").compare("asked", None, "good", "bad").score == 1
    assert prefers("good").compare("asked", None, "bad", "good").score == 0
    assert prefers("good").compare("asked", None, "poor", "bad").flipped


def test_equal_and_empty_answers_cost_nothing() -> None:
    def ask(messages: list[JudgeMessage]) -> str:
        raise AssertionError(messages)

    judge = JudgeGrader(ask)

    assert judge.compare("asked", None, "same", "same ").score == 0.5
    assert judge.compare("asked", None, "", "text").score == 0


def test_grades_against_the_longest_rung() -> None:
    """A loss is wrong, a win or a draw is right, and the longest rung is the measure."""
    judge = prefers("good")
    answers = {
        0: [ModelAnswer("bad"), ModelAnswer("poor")],
        9: [ModelAnswer("good"), ModelAnswer("fair")],
        3: [ModelAnswer("very good!")],
    }

    grades = judge.grade_group("asked", None, answers)

    assert {rung: [grade.score for grade in one] for rung, one in grades.items()} == {
        0: [0, 1],
        9: [1, 1],
        3: [1],
    }
    assert {rung: [grade.verdicts for grade in one] for rung, one in grades.items()} == {
        0: [("2", "1"), ("1", "1")],
        9: [None, None],
        3: [("2", "2")],
    }


def test_nonsense_and_failures_are_no_grade() -> None:
    def fails(messages: list[JudgeMessage]) -> str:
        raise JudgeFailed("status 500")

    for judge, note in (
        (JudgeGrader(fails), "the judge failed: status 500"),
        (JudgeGrader(lambda _: "?"), "the judge gave no verdict"),
    ):
        grade = judge.grade_group("asked", None, {0: [ModelAnswer("a")], 1: [ModelAnswer("b")]})[0][0]
        assert (grade.score, grade.note) == (None, note)


class Endpoint(ThreadingHTTPServer):
    """A server that gives the same response to every request."""

    status: int = 200
    reply: bytes = b""
    asked: dict[str, Any]
    key: str | None


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.server.asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.key = self.headers["authorization"]
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.reply)))
        self.end_headers()
        self.wfile.write(self.server.reply)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings(port: int) -> JudgeSettings:
    return JudgeSettings.model_validate(
        {"url": f"http://127.0.0.1:{port}/v1", "model": "judge", "api_key": "secret"}
    )


def test_asks_an_endpoint(endpoint: Endpoint) -> None:
    endpoint.reply = json.dumps({"choices": [{"message": {"content": "VERDICT: 2"}}]}).encode()
    messages = [{"role": "user", "content": "?"}]

    assert ask_judge(settings(endpoint.server_port), 30)(messages) == "VERDICT: 2"
    assert endpoint.asked == {"model": "judge", "messages": messages, "temperature": 0}
    assert endpoint.key == "Bearer secret"


@pytest.mark.parametrize(
    ("status", "reply", "cause"),
    [
        (500, b"", "status 500"),
        (200, b"<html>", "no chat completion"),
        (200, b'{"choices": []}', "no chat completion"),
    ],
)
def test_endpoint_fails(endpoint: Endpoint, status: int, reply: bytes, cause: str) -> None:
    endpoint.status, endpoint.reply = status, reply

    with pytest.raises(JudgeFailed, match=cause):
        ask_judge(settings(endpoint.server_port), 30)([])


def test_endpoint_is_away(free_port: int) -> None:
    with pytest.raises(JudgeFailed):
        ask_judge(settings(free_port), 30)([])
