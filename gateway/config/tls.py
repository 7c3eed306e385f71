"""Builds the TLS contexts of connections to replicas from their settings and files."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.config.models import ReplicaTls
from gateway.config.settings import SettingPath, Settings

_contexts: dict[ReplicaTls | None, tuple[tuple[int, ...], ssl.SSLContext]] = {}
"""The context of each setting, with the times at which its files were last changed."""


class TlsFileError(Exception):
    """A file of the TLS settings cannot be used; `setting` is the one that names it."""

    def __init__(self, setting: str, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.setting = setting


def tls_context(tls: ReplicaTls | None) -> ssl.SSLContext:
    """The context for connections to a replica. Files that have changed are read again.

    While a certificate and its key are being replaced they may not fit each other, so files that cannot be
    used leave the previous context in place.

    Raises: TlsFileError.
    """
    known = _contexts.get(tls)
    try:
        stamps = tuple(_changed_at(setting, path) for setting, path in _files(tls))
        if known and known[0] == stamps:
            return known[1]
        context = _build(tls)
    except TlsFileError:
        if known:
            return known[1]
        raise
    _contexts[tls] = stamps, context
    return context


def tls_mistakes(settings: Settings) -> list[tuple[SettingPath, str]]:
    """The TLS settings of replicas whose files cannot be used, each with the reason."""
    found: list[tuple[SettingPath, str]] = []
    for name, model in settings.models.items():
        for index, replica in enumerate(model.replicas):
            try:
                if replica.tls:
                    _build(replica.tls)
            except TlsFileError as error:
                found.append((("models", name, "replicas", index, "tls", error.setting), str(error)))
    return found


def _files(tls: ReplicaTls | None) -> list[tuple[str, str]]:
    pairs = [("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)] if tls else []
    return [(setting, path) for setting, path in pairs if path is not None]


def _changed_at(setting: str, path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError as error:
        raise TlsFileError(setting, path, error.strerror or "cannot be read") from None


def _build(tls: ReplicaTls | None) -> ssl.SSLContext:
    if tls is None:
        return ssl.create_default_context()
    for setting, path in _files(tls):
        _read(setting, path)
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (ssl.SSLError, ValueError):
        raise TlsFileError("ca", str(tls.ca), "not a file of certificates in PEM") from None
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        _load_certificate(context, tls.cert, tls.key)
    return context


def _read(setting: str, path: str) -> None:
    if Path(path).is_fifo():  # reading it blocks until something writes to it
        raise TlsFileError(setting, path, "not a regular file")
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise TlsFileError(setting, path, error.strerror or "cannot be read") from None


def _load_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    setting, path = ("key", key) if key else ("cert", cert)
    try:
        # an empty password, because OpenSSL would otherwise ask for one at the terminal
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError(setting, path, "the key is not that of the certificate") from None
        reason = "not a certificate and its key in PEM, or the key needs a password"
        raise TlsFileError(setting, path, reason) from None
    except ValueError:
        raise TlsFileError(setting, path, "the key needs a password") from None
