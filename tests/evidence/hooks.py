"""Hooks for tests of `evidence.redact`: one that works, and those that fail in each way."""

from __future__ import annotations

import os
import re
import time

NOT_A_FUNCTION = "text"


def without_digits(prompt: str) -> str:
    print("noise on the standard output")
    return re.sub(r"\d", "#", prompt)


def moody(prompt: str) -> object:
    """Fails as the prompt says."""
    if prompt == "raise":
        raise ValueError(prompt)
    if prompt == "hang":
        time.sleep(60)
    if prompt == "backtrack":
        re.fullmatch("(a+)+b", "a" * 60)
    if prompt == "crash":
        os._exit(3)
    return None if prompt == "none" else prompt.upper()


def refuses(prompt: str) -> str:
    """Never has a text to keep."""
    raise ValueError(prompt)
