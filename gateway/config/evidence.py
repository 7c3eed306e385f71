"""Settings of the evidence: the store, shadow pairs, and the hold-out. All are off by default."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, field_validator, model_validator

from gateway.config.base import HeaderSecret, Section
from gateway.config.budgets import Duration
from gateway.config.forwarding import ForwardedHeader

_HOOK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
PREVIOUS_HEAD = "previous_head"


def _written(value: Any) -> Any:
    """Thinking tokens may be written as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ShadowGrader = Literal["judge", "agreement", "exact", "number", "choice", "math"]
"""How the answers of shadow pairs are compared: by a model, or with each other."""


class EvidenceSettings(Section):
    """Where the gateway keeps what it learns from its own traffic. `evidence: {}` turns it on."""

    url: SecretStr | None = Field(
        None,
        description="`postgresql://USER:PASSWORD@HOST/NAME` for many gateways; default: SQLite in `file`.",
    )
    file: str = Field("thinkmeter-evidence.db", min_length=1, description="The SQLite file.")
    prompts: bool = Field(False, description="Also keep the text of prompts; default: only features of them.")
    redact: str | None = Field(
        None, description="`MODULE:FUNCTION` that takes a prompt and returns the text to keep."
    )
    days: float = Field(90, gt=0, le=3_650, description="Age at which rows are deleted, in days.")
    bytes: int = Field(
        4_294_967_296, ge=1_048_576, description="Size of the store at which the oldest rows are deleted."
    )
    queue: int = Field(
        10_000, ge=100, le=1_000_000, description="Rows that wait in memory at most; later ones are dropped."
    )

    candidates: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the decisions for which the newest candidate head in the store is asked too.",
    )

    auto_promote: bool = Field(
        False, description="Promote the newest candidate head by itself once the gate lets it pass."
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: SecretStr | None) -> SecretStr | None:
        if url and urlsplit(url.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError("must begin with postgresql://")
        return url

    @model_validator(mode="after")
    def _hook(self) -> Self:
        if self.redact is not None:
            if not _HOOK.fullmatch(self.redact):
                raise ValueError("`redact` names a function as MODULE:FUNCTION")
            if not self.prompts:
                raise ValueError("`redact` has no effect without `prompts: true`")
        return self


class JudgeSettings(Section):
    """The model that compares two answers, behind any endpoint of OpenAI's API."""

    url: HttpUrl = Field(description="Base URL, without /v1.")
    model: str = Field(min_length=1, description="The name of the model.")
    api_key: HeaderSecret | None = Field(None, description="Sent as a bearer token.")


class ShadowBudget(Section):
    """The tokens that shadow requests may use, apart from those of clients: of prompts, answers and judge."""

    tokens: int = Field(ge=1, le=10**13, description="Limit of tokens within the window.")
    window: Duration = Field(86_400, description="Length: `1h`, `24h`, or seconds.")


class ShadowSettings(Section):
    """Asks a share of the requests again at another rung, after the client has its answer."""

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Share of the requests that is asked again."
    )
    against: Annotated[str, BeforeValidator(_written)] = Field(
        "long",
        min_length=1,
        max_length=32,
        description="What is asked instead: the name of a tier, `previous_head`, or thinking tokens.",
    )
    grade: ShadowGrader = Field("agreement", description="How the two answers are compared.")
    judge: JudgeSettings | None = Field(None, description="The judge of `grade: judge`.")
    budget: ShadowBudget = Field(description="Tokens of their own; a budget is required.")
    tools: bool = Field(
        False, description="Also ask again requests with tools. What their calls changed may happen twice."
    )

    @model_validator(mode="after")
    def _has_judge(self) -> Self:
        if self.grade == "judge" and self.judge is None:
            raise ValueError("`grade: judge` needs `judge`")
        return self


class HoldoutSettings(Section):
    """Gives a share of people or conversations the policy that would run without the gateway."""

    share: Annotated[float, Field(ge=0, le=0.5)] = Field(description="Share that is held out.")
    by: Literal["conversation", "user"] | ForwardedHeader = Field(
        "conversation",
        description="What stays together: a conversation, `user`, or the value of a header of this name.",
    )
    policy: str = Field("long", min_length=1, description="The tier that they get.")


class DriftSettings(Section):
    """Tests all the time whether the head's estimates still hold, on the evidence in the store."""

    on_drift: Literal["alarm", "raise_floor", "prior"] = Field(
        "alarm",
        description="What an alarm about right answers does beside telling: nothing, raise the model's floor "
        "by one tier, or take the model's estimates from the prior. It ends with the alarm.",
    )
    tolerance: float = Field(
        0.02,
        ge=0,
        le=0.05,
        description="How far the share of right answers may be below the head's P(right).",
    )
    every: Duration = Field(60, description="Time between two looks at new evidence.")


class QualitySettings(Section):
    """Promises how many right answers the gateway costs at most, and proves it on shadow pairs."""

    loses_at_most: float = Field(
        0.02, gt=0, le=0.5, description="Share of right answers that may be lost against the fixed tier."
    )
    against: str = Field("long", min_length=1, description="The tier that the promise compares with.")
    sure: float = Field(
        0.95, ge=0.5, le=0.999, description="Probability that no price is certified that breaks the promise."
    )
    until: Literal["safe", "price"] = Field(
        "safe",
        description="What acts until a price is certified: the tier `against`; or the configured price, and "
        "it is only told whether that is certified.",
    )
