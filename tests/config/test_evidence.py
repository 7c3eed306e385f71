"""Settings of the evidence."""

from __future__ import annotations

import pytest

from gateway.config.loader import ConfigError, parse_file

_MODEL = "models: {m: {family: qwen3, replicas: [{url: 'http://127.0.0.1:1'}]}}\n"


def test_store_is_off_by_default_and_on_with_an_empty_section() -> None:
    assert parse_file(_MODEL.encode())[0].evidence is None
    assert parse_file(f"{_MODEL}evidence: {{}}\n".encode())[0].evidence is not None


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ("holdout: {share: 0.1}", "needs `evidence"),
        ("drift: {}", "needs `evidence"),
        ("evidence: {}\nhead: baseline\ndrift: {on_drift: prior}", "the baseline has no prior"),
        ("evidence: {}\ndrift: {tolerance: 0.2}", "less than or equal to 0.05"),
        ("evidence: {}\nholdout: {share: 0.1, policy: huge}", "no tier 'huge'"),
        ("evidence: {}\nholdout: {share: 0.6}", "0.5"),
    ],
)
def test_a_holdout_needs_a_store_and_a_tier(sections: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_file(f"{_MODEL}{sections}\n".encode())


@pytest.mark.parametrize("wrong", ["redact: x", "url: mysql://h/d", "prompts: false, redact: 'a:b'"])
def test_wrong_settings_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parse_file(f"{_MODEL}evidence: {{{wrong}}}\n".encode())


_SHADOW = "shadow: {{share: 0.1, against: {}, budget: {{tokens: 1000}}}}\n"


@pytest.mark.parametrize("against", ["long", "direct", "previous_head", "2048", "0"])
def test_shadow(against: str) -> None:
    """Thinking tokens may be written as a number. Its budget needs Redis."""
    settings = parse_file(f"{_MODEL}evidence: {{}}\n{_SHADOW.format(against)}".encode())[0]
    assert settings.shadow
    assert settings.shadow.against == against
    assert settings.counts_tokens


def test_promise_of_quality() -> None:
    """It is strict by default."""
    text = f"{_MODEL}evidence: {{}}\n{_SHADOW.format('long')}quality: {{}}\n"
    quality = parse_file(text.encode())[0].quality
    assert quality
    assert (quality.loses_at_most, quality.against, quality.sure, quality.until) == (
        0.02,
        "long",
        0.95,
        "safe",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("evidence: {}\nquality: {}", "needs `shadow`"),
        ("evidence: {}\nquality: {}\n" + _SHADOW.format("direct"), "must be that of `shadow`, 'direct'"),
        ("evidence: {}\nquality: {against: huge}\n" + _SHADOW.format("long"), "no tier 'huge'"),
        ("evidence: {}\nquality: {loses_at_most: 0}\n" + _SHADOW.format("long"), "greater than 0"),
        ("evidence: {}\nquality: {sure: 1}\n" + _SHADOW.format("long"), "0.999"),
        ("evidence: {}\nquality: {until: dawn}\n" + _SHADOW.format("long"), "'safe' or 'price'"),
    ],
)
def test_promise_that_cannot_be_kept(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_file(f"{_MODEL}{text}\n".encode())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (_SHADOW.format("long"), "needs `evidence"),
        ("evidence: {}\n" + _SHADOW.format("longest"), "no tier 'longest'"),
        ("evidence: {}\n" + _SHADOW.format("-1"), "no tier '-1'"),
        ("evidence: {}\n" + _SHADOW.format("true"), "shadow.against"),
        ("evidence: {}\nshadow: {share: 0.1}", "budget"),
        ("evidence: {}\nshadow: {share: 0.1, grade: judge, budget: {tokens: 1}}", "needs `judge`"),
    ],
)
def test_shadow_that_cannot_work(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_file(f"{_MODEL}{text}\n".encode())
