# ruff: noqa: INP001, S310, S603 - runs docker for the script beside it
"""The compose stack under test: its commands, requests through its balancer, and its Prometheus."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# The gateway refuses the secrets of .env.example. These are the same in every run, as the stack stays up.
ENV = Path(tempfile.gettempdir()) / "thinkmeter-offline.env"
ENV.write_text((ROOT / ".env.example").read_text().replace("change-me", "offline-proof"))
KEYS = dict(line.split("=", 1) for line in ENV.read_text().splitlines() if "=" in line and line[0] != "#")
VERSION = KEYS["THINKMETER_VERSION"]
GATEWAY, PROMETHEUS = (f"http://127.0.0.1:{KEYS[name]}" for name in ("PORT", "PROMETHEUS_PORT"))

arguments = [argument for argument in sys.argv[1:] if argument != "--no-grafana"]
COMPOSE = [
    *shlex.split(arguments[0] if arguments else "docker compose"),
    "--env-file",
    str(ENV),
    "-p",
    "thinkmeter",
]


@dataclass(frozen=True)
class Answer:
    """A response as a client saw it: time of completion, status, completion tokens, seconds, and headers."""

    at: float
    status: int
    tokens: int
    seconds: float
    headers: dict[str, str]
    cut: str = ""
    """Why the response is missing or incomplete."""


def compose(*words: str, stdin: bytes | None = None, version: str = VERSION) -> bytes:
    command = ["env", f"THINKMETER_VERSION={version}", *COMPOSE, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, input=stdin, check=False)
    if done.returncode:
        raise SystemExit(f"compose {' '.join(words)}: {done.stderr.decode()}")
    return done.stdout


def containers(service: str) -> list[str]:
    return compose("ps", "-q", service).decode().split()


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout  # noqa: S607


def ask(number: int, key: str = "WEB_KEY", *, stream: bool = False) -> Answer:
    """One chat request through the load balancer; status 0 if the response is missing or incomplete."""
    question = f"What is ({number % 9 + 1}+{number % 7})*{number % 5 + 2}-{number % 11}?"
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": question}]}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    request = urllib.request.Request(
        f"{GATEWAY}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {KEYS[key]}", "content-type": "application/json"},
    )
    begun = time.monotonic()
    status, tokens, headers, cut = 0, 0, {}, ""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, headers = response.status, dict(response.headers)
            tokens = whole(response.read(), stream=stream)["usage"]["completion_tokens"]
    except urllib.error.HTTPError as error:
        status, headers = error.code, dict(error.headers)
    except (OSError, HTTPException, ValueError) as error:
        status, cut = 0, repr(error)
    ended = time.monotonic()
    return Answer(ended, status, tokens, ended - begun, {name.lower(): v for name, v in headers.items()}, cut)


def whole(answer: bytes, *, stream: bool) -> dict[str, Any]:
    """The response body, or the last event of a stream.

    Raises: ValueError if the stream is incomplete.
    """
    if stream:
        *_, last, done = (line[6:] for line in answer.splitlines() if line.startswith(b"data: "))
        if done != b"[DONE]":
            raise ValueError(done)
        answer = last
    found: dict[str, Any] = json.loads(answer)
    return found


def flood(seconds: float, threads: int = 12, **what: Any) -> list[Answer]:
    """Send requests in a closed loop for this long."""
    until, answers, lock = time.monotonic() + seconds, list[Answer](), threading.Lock()

    def client(start: int) -> None:
        number = start
        while time.monotonic() < until:
            answer = ask(number, **what)
            number += threads
            with lock:
                answers.append(answer)
            if answer.status != 200:
                time.sleep(0.05)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(client, range(threads)))
    return sorted(answers, key=lambda answer: answer.at)


def query(expression: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(
        f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    ) as reply:
        found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
    return found
