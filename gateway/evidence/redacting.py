"""What is kept of prompts; and the hook `evidence.redact`, which runs in a process of its own.

A regular expression can take for ever, and would hold the lock of the gateway's Python meanwhile. An alarm
ends the process if one prompt takes too long.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from gateway.config.evidence import EvidenceSettings
from gateway.config.hooks import load_hook

log = logging.getLogger("thinkmeter.evidence")

_SECONDS = 1
"""For one prompt."""
_START_SECONDS = 60
_MOST_LOST = 3
"""Times in a row that the process ends by a prompt; then no prompt is kept for a while."""
_PAUSE = 60.0
_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from gateway.evidence.redacting import redact_lines
redact_lines(sys.argv[1])
"""


class Keeping:
    """What is kept of prompts under some settings."""

    def __init__(self, settings: EvidenceSettings, lost: Counter[str] | None = None) -> None:
        """lost: counts prompts that were not kept because the hook failed, as `unredacted`."""
        self.prompts = settings.prompts
        self.lost: Counter[str] = Counter() if lost is None else lost
        self._redactor = Redactor(settings.redact) if settings.redact else None

    def text(self, prompt: str) -> str | None:
        """The text to keep of a prompt; None to keep none."""
        if not self.prompts or self._redactor is None:
            return prompt if self.prompts else None
        redacted = self._redactor.redact(prompt)
        if redacted is None:
            self.lost["unredacted"] += 1
        return redacted

    def close(self) -> None:
        """End the process of the hook."""
        if self._redactor:
            self._redactor.close()


class Redactor:
    """Has prompts redacted, one after the other. It blocks, for a second at most and rarely longer."""

    def __init__(self, hook: str) -> None:
        self._hook = hook
        self._process: subprocess.Popen[bytes] | None = None
        self._lost = 0
        self._paused_until = 0.0
        self._told = False

    def redact(self, prompt: str) -> str | None:
        """The text to keep; None if the hook failed, took too long, or returned no text."""
        if time.monotonic() < self._paused_until:
            return None
        reply = self._ask(prompt)
        if reply is None:
            self._count_loss()
            return None
        self._lost = 0
        text = reply["text"]
        if not isinstance(text, str):
            self._tell(reply["error"])
            return None
        return text

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        process.wait()

    def _ask(self, prompt: str) -> dict[str, Any] | None:
        """The reply; None if the process ended."""
        process = self._process = self._process or self._started()
        reply = b""
        with suppress(OSError):  # it has ended
            process.stdin.write(json.dumps(prompt).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            reply = process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(reply) if reply.endswith(b"\n") else None

    def _count_loss(self) -> None:
        self.close()
        self._tell(f"it ended, or took longer than {_SECONDS} s")
        self._lost += 1
        if self._lost >= _MOST_LOST:
            self._lost = 0
            self._paused_until = time.monotonic() + _PAUSE

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "evidence.redact failed, so the prompt is not kept; later failures count only: %s", why
            )

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - this module
            [sys.executable, "-P", "-c", _PROGRAM, self._hook, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the gateway
        )


def redact_lines(hook: str) -> None:
    """Redact prompts until there are no more. Each is a line of JSON, and so is each reply."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the hook prints is no reply
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_START_SECONDS)
    redact = load_hook(hook)
    for line in sys.stdin.buffer:
        signal.alarm(_SECONDS)
        reply = _reply(redact, json.loads(line))
        signal.alarm(0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _reply(redact: Any, prompt: str) -> dict[str, Any]:
    try:
        text = redact(prompt)
    except Exception as error:  # noqa: BLE001 - its text may quote the prompt, so only its type is told
        return {"text": None, "error": type(error).__name__}
    if isinstance(text, str):
        return {"text": text}
    return {"text": None, "error": f"it returned {type(text).__name__}"}
