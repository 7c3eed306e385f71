"""The operator's rules, which apply before the head decides."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from gateway.config.base import Name, Section, TierName


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class When(Section):
    """Conditions of a rule. All given ones must hold; a list holds if one member does."""

    key: list[str] | None = Field(None, description="Names of API keys.")
    model: list[str] | None = Field(None, description="Names of models.")
    header: dict[str, str] | None = Field(None, description="Header values, exact; names in any case.")
    metadata: dict[str, str] | None = Field(None, description="Values of the request's `metadata`.")
    prompt: Annotated[str, AfterValidator(_regular_expression)] | None = Field(
        None, description="Regular expression searched in the last 20,000 characters of the conversation."
    )
    tools: bool | None = Field(None, description="Whether the request offers tools.")


class Rule(Section):
    """A fixed tier, a floor or a ceiling for the requests that meet the conditions."""

    name: Name = Field(description="Shown in the decision.")
    when: When = Field(default_factory=When, description="Conditions; without any, every request matches.")
    tier: TierName | None = Field(None, description="Always this tier, whatever the client asks for.")
    floor: TierName | None = Field(None, description="At least this tier.")
    ceiling: TierName | None = Field(None, description="At most this tier.")
    over_keys: bool = Field(
        False, description="Whether the tier or the floor passes the ceiling of the client's key."
    )

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if self.tier is None and self.floor is None and self.ceiling is None:
            raise ValueError("a rule needs one of tier, floor, ceiling")
        if self.tier is not None and (self.floor or self.ceiling):
            raise ValueError("a rule with a fixed tier has no floor or ceiling")
        if self.over_keys and not (self.tier or self.floor):
            raise ValueError("`over_keys` needs a tier or a floor")
        return self
