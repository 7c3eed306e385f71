"""Settings of what tokens cost, for the report. They decide nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.base import ModelName, Section

_Cost = Annotated[float, Field(ge=0, le=10**9)]


class ModelCosts(Section):
    """What a model's tokens cost. All that is given adds up."""

    prompt: _Cost = Field(0, description="Money per million prompt tokens.")
    completion: _Cost = Field(0, description="Money per million completion tokens, reasoning included.")
    gpu_hours: _Cost = Field(0, description="GPU hours per million completion tokens.")


class CostSettings(Section):
    """What `thinkmeter report` turns tokens into. Models that are no longer served may be listed, too."""

    currency: str = Field("USD", min_length=1, max_length=8, description="The name of the money.")
    gpu_hour: _Cost = Field(0, description="Money per GPU hour.")
    models: dict[ModelName, ModelCosts] = Field(
        default_factory=dict, description="The costs of each model's tokens."
    )
