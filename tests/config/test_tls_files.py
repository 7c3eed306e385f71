"""Mistakes in the TLS settings of a replica are reported with their line when the file is loaded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gateway.config.loader import ConfigError, Problem, parse
from tests.authority import Authority

REPLICA = """\
models:
  tiny:
    family: qwen3
    replicas:
      - url: {url}
        tls: {{{tls}}}
"""
AT = "models.tiny.replicas.0"


def problem(tls: str, url: str = "https://a") -> Problem:
    with pytest.raises(ConfigError) as caught:
        parse(REPLICA.format(url=url, tls=tls), {})
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ("key: k.pem", "`key` needs `cert`"),
        ("ca: ca.pem, verify: false", "`ca` has no effect with `verify: false`"),
        ("name: .a", "not a host name"),
        ("cacert: ca.pem", "unknown setting"),
    ],
)
def test_settings_that_contradict_each_other(tls: str, message: str) -> None:
    """They are refused at the section or the setting."""
    found = problem(tls)

    assert (found.line, found.place[: len(AT)]) == (6, AT)
    assert message in found.message


def test_tls_without_https() -> None:
    """Settings that would have no effect are a mistake."""
    assert "https://" in problem("verify: false", "http://a").message


def test_files(authority: Authority, tmp_path: Path) -> None:
    """Every file must be readable, be what its setting says, and fit the others."""
    ours, theirs = authority.certificate("ours"), authority.certificate("theirs")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    locked = tmp_path / "locked.pem"
    words = f"ec -in {ours.key} -aes128 -passout pass:secret -out {locked}"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    os.mkfifo(tmp_path / "pipe")
    expected = {
        f"ca: {tmp_path / 'pipe'}": ("ca", f"{tmp_path / 'pipe'}: not a regular file"),
        "ca: /no/such/file": ("ca", "/no/such/file: No such file or directory"),
        f"ca: {tmp_path}": ("ca", f"{tmp_path}: Is a directory"),
        f"ca: {text}": ("ca", f"{text}: not a file of certificates in PEM"),
        f"cert: {ours.cert}, key: /gone": ("key", "/gone: No such file or directory"),
        f"cert: {ours.cert}, key: {theirs.key}": (
            "key",
            f"{theirs.key}: the key is not that of the certificate",
        ),
        f"cert: {ours.cert}": ("cert", f"{ours.cert}: not a certificate and its key in PEM"),
        f"cert: {ours.cert}, key: {locked}": ("key", "needs a password"),
    }
    for tls, (setting, message) in expected.items():
        found = problem(tls)
        assert (found.line, found.place) == (6, f"{AT}.tls.{setting}"), tls
        assert message in found.message, tls

    parse(REPLICA.format(url="https://a", tls=f"ca: {authority.ca}, cert: {ours.cert}, key: {ours.key}"), {})
