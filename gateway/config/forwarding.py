"""Which headers an operator may let pass to the backends."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    "transfer-encoding upgrade host content-length expect".split()
)
"""Headers about one connection."""
_CREDENTIALS = frozenset("authorization x-api-key api-key cookie".split())
_SET_BY_US = frozenset("accept-encoding content-encoding content-type x-request-id".split())


def _may_pass(name: str) -> str:
    name = name.lower()
    if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}", name):
        raise ValueError("not the name of a header")
    if name in HOP_BY_HOP | _CREDENTIALS | _SET_BY_US:
        raise ValueError(f"{name} never passes: it is a credential, or of one connection, or set here")
    return name


ForwardedHeader = Annotated[str, AfterValidator(_may_pass)]
"""The name of a header, in lower case."""
