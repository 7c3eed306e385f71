"""A private certificate authority, for tests of TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    cert: str
    key: str

    def context(self, *, clients: str | None = None) -> ssl.SSLContext:
        """The context of a server with this certificate. clients: the CA of the clients that it accepts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if clients:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority:
    """A CA that signs certificates with openssl."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            pytest.skip("needs openssl to make certificates")
        self._folder = folder
        self.ca = str(folder / "ca.pem")
        """The CA's own certificate."""
        self._openssl(f"req -x509 {_KEY} -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem")

    def certificate(self, name: str, *names: str, days: int = 2) -> Certificate:
        """A certificate for `names`, such as "IP:127.0.0.1"; an expired one if `days` is negative."""
        alternatives = self._folder / f"{name}.ext"
        alternatives.write_text(f"subjectAltName={','.join(names or (f'DNS:{name}',))}\n")
        self._openssl(f"req {_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        self._openssl(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} "
            f"-extfile {name}.ext -out {name}.pem"
        )
        return Certificate(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))

    def _openssl(self, words: str) -> None:
        command = ["openssl", *words.split()]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder)
