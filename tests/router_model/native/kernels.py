"""A kernel for tests: the one beside the sources, or one that is compiled now."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest

from router_model.native.build import build
from router_model.native.library import Kernel, kernel


@cache
def needed_kernel() -> Kernel:
    """The kernel of these sources; the test is skipped on a machine without a C compiler."""
    if found := kernel():
        return found
    with tempfile.TemporaryDirectory() as folder:  # what is loaded needs its file no longer
        built = build(Path(folder))
        return pytest.skip(built) if isinstance(built, str) else Kernel(str(built))
