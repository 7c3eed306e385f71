"""The base class of configuration sections, and the types of their fields."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def header_text(secret: str) -> str:
    """A secret as a header can carry it: without the line end or spaces around it, which files often add.

    Raises: ValueError.
    """
    secret = secret.strip()
    if _CONTROL.search(secret):
        raise ValueError("no header can carry it: it has a line end or another control character inside")
    return secret


def _as_header(secret: SecretStr) -> SecretStr:
    return SecretStr(header_text(secret.get_secret_value()))


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@-]{0,127}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:-]{0,127}$")]
"""May have colons, as in `qwen3:8b`. A client pins a tier after the last one: `qwen3:8b:short`."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Tokens = Annotated[int, Field(ge=0, le=10_000_000)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_as_header)]
"""A secret that is sent in a header."""
TierName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Section(BaseModel):
    """A section of the configuration: immutable; a misspelt setting is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
