"""`thinkmeter hash-key`: the hash of an API key."""

from __future__ import annotations

import pytest

from gateway.config.access import key_digest
from tests.cli.command import run


@pytest.mark.parametrize("stdin", ["sk-secret", "sk-secret\n", " sk-secret \n", "sk-secret\r\nmore\n"])
def test_hash_key(stdin: str) -> None:
    """The command prints the hash for `keys[].hash`, and never the secret."""
    result = run("hash-key", stdin=stdin)

    assert result.exit_code == 0
    assert result.stdout.strip() == key_digest("sk-secret")
    assert "secret" not in result.output


def test_hash_key_of_nothing() -> None:
    """Without a key on standard input, the status is 2."""
    assert run("hash-key", stdin="").exit_code == 2
