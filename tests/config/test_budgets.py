"""Mistakes in the settings of budgets and Redis are reported with line, setting and advice."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.budget.limits import BudgetLimits
from gateway.config.loader import ConfigError, parse

GOOD = """\
models:
  tiny: {family: qwen3, replicas: [{url: "http://a"}]}
  other: {family: qwen3, replicas: [{url: "http://b"}]}
keys:
  - {name: ann, key: a, team: red}
  - {name: bob, key: b}
"""
LINES = GOOD.count("\n")


def budget(**fields: Any) -> str:
    """The file with one budget, one field per line: `name` is on the second line after `GOOD`."""
    known = {"name": "b", "window": "1m", "tokens": 100} | fields
    items = [f"{name}: {value}" for name, value in known.items() if value is not None]
    return GOOD + "budgets:\n  - " + "\n    ".join(items) + "\n"


MISTAKES = [
    (budget(window="1 week"), 3, "budgets.0.window", "a duration is written like 90s, 1m, 24h or 30d"),
    (budget(window="500ms"), 3, "budgets.0.window", "a duration is written like"),
    (budget(window=0.5), 3, "budgets.0.window", "greater than or equal to 1"),
    (budget(window="367d"), 3, "budgets.0.window", "less than or equal to 31622400"),
    (budget(window=None), 2, "budgets.0.window", "missing"),
    (budget(tokens=0), 4, "budgets.0.tokens", "greater than or equal to 1"),
    (budget(tokens="many"), 4, "budgets.0.tokens", "must be a whole number"),
    (budget(token=5), 5, "budgets.0.token", "unknown setting; did you mean 'tokens'?"),
    (budget(scope="user"), 5, "budgets.0.scope", "'global', 'key', 'team' or 'model'"),
    (budget(count="prompt"), 5, "budgets.0.count", "'completion' or 'total'"),
    (budget(reserve="mean"), 5, "budgets.0.reserve", "'strict' or 'p95'"),
    (budget(when_redis_fails="hope"), 5, "budgets.0.when_redis_fails", "'closed', 'degrade' or 'open'"),
    (budget(name="a:b"), 2, "budgets.0.name", "pattern"),
    (budget(match="[ann]"), 5, "budgets.0.match", "a global budget is for everybody"),
    (budget(scope="key", match="[zoe]"), 6, "budgets.0.match", "unknown key zoe"),
    (budget(scope="team", match="[blue]"), 6, "budgets.0.match", "unknown team blue"),
    (budget(scope="model", match="[tny]"), 6, "budgets.0.match", "unknown model tny"),
    (budget() + "  - {name: b, window: 1h, tokens: 9}\n", 5, "budgets.1.name", "two budgets are called 'b'"),
    (
        budget().replace(", team: red", "") + "    scope: team\n",
        5,
        "budgets.0.scope",
        "no team is configured",
    ),
    (GOOD + "redis: {url: localhost}\n", 1, "redis.url", "must begin with redis://, rediss:// or unix://"),
    (GOOD + 'redis: {url: "redis://a:port"}\n', 1, "redis.url", "the port is not valid"),
    (GOOD + "redis: {cluster: true}\n", 1, "redis", "a cluster needs a `url`"),
    (GOOD + 'redis: {url: "unix:///s", cluster: true}\n', 1, "redis", "a cluster needs a `url`"),
    (GOOD + "redis: {timeout: 1}\n", 1, "redis.timeout", "less than or equal to 0.25"),
    (GOOD + "redis: {prefix: 'a{b}'}\n", 1, "redis.prefix", "pattern"),
    (GOOD + "reservations: {lease: 0.5}\n", 1, "reservations.lease", "greater than or equal to 1"),
    (GOOD + "reservations: {local_share: 2}\n", 1, "reservations.local_share", "less than or equal to 1"),
    (GOOD + "queue: {seconds: 61}\n", 1, "queue.seconds", "less than or equal to 60"),
]


@pytest.mark.parametrize(("text", "line", "place", "message"), MISTAKES)
def test_mistakes(text: str, line: int, place: str, message: str) -> None:
    """Each mistake is reported with its line, its setting and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        parse(text, {})
    (problem,) = caught.value.problems

    assert (problem.line, problem.place) == (LINES + line, place)
    assert message in problem.message


@pytest.mark.parametrize("url", ["http://:hunter2@a", "redis://:hunter2/x@a"])
def test_a_password_is_not_repeated(url: str) -> None:
    """The message about an invalid URL does not repeat it."""
    with pytest.raises(ConfigError) as caught:
        parse(GOOD + f'redis: {{url: "{url}"}}\n', {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("window", "seconds"), [("90s", 90), ("1.5m", 90), ("24h", 86_400), ("30d", 2_592_000), (60, 60)]
)
def test_windows(window: Any, seconds: float) -> None:
    """A window is a number of seconds, or a number with a unit."""
    assert parse(budget(window=window), {}).budgets[0].window == seconds


def test_windows_have_keys_of_their_own() -> None:
    """Each budget, holder and window length has its own keys in Redis."""
    lengths = [f"{31_536_000 + seconds}s" for seconds in range(3)]
    keys = [
        key
        for length in lengths
        for scope in ("global", "key", "model")
        for limit in BudgetLimits(parse(budget(name=scope, scope=scope, window=length), {})).limits.values()
        for key in (limit.window.key, limit.window.leases)
    ]
    assert len(set(keys)) == len(keys) == 2 * 3 * (1 + 2 + 2)
