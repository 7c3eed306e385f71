"""Settings of the evidence."""

from __future__ import annotations

import pytest

from gateway.config.loader import ConfigError, parse_file

_MODEL = "models: {m: {family: qwen3, replicas: [{url: 'http://127.0.0.1:1'}]}}\n"


def test_store_is_off_by_default_and_on_with_an_empty_section() -> None:
    assert parse_file(_MODEL.encode())[0].evidence is None
    assert parse_file(f"{_MODEL}evidence: {{}}\n".encode())[0].evidence is not None


@pytest.mark.parametrize("section", ["holdout: {share: 0.1}", "shadow: {share: 0.1, budget: {tokens: 1000}}"])
def test_what_has_no_effect_yet_is_refused(section: str) -> None:
    """Nobody believes that a comparison runs which does not."""
    with pytest.raises(ConfigError, match="no effect in this version"):
        parse_file(f"{_MODEL}evidence: {{}}\n{section}\n".encode())


@pytest.mark.parametrize("wrong", ["redact: x", "url: mysql://h/d", "prompts: false, redact: 'a:b'"])
def test_wrong_settings_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parse_file(f"{_MODEL}evidence: {{{wrong}}}\n".encode())
