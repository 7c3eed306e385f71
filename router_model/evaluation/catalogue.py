"""All methods that the results compare."""

from __future__ import annotations

import math

from router_model.evaluation import ibpo
from router_model.evaluation.baselines import (
    Boosting,
    DatasetIdentity,
    Neighbours,
    QuantileRule,
    Regression,
    TextRidge,
)
from router_model.evaluation.factorisation import Factorisation
from router_model.evaluation.methods import Method
from router_model.evaluation.ours import FIRST_STAGE, HeadMethod, PolicyMethod
from router_model.heuristic import difficulty


def baselines() -> tuple[Method, ...]:
    """What the head must beat, simplest first."""
    return (
        QuantileRule("prompt length", lambda prompt: math.log1p(len(prompt))),
        QuantileRule("keywords", difficulty),
        DatasetIdentity(),
        Neighbours(),
        TextRidge(),
        Regression(),
        Factorisation(),
        Boosting(),
    )


def ours() -> tuple[Method, ...]:
    """The head and the methods that start from it."""
    return (
        HeadMethod(),
        HeadMethod(FIRST_STAGE, objective=None),
        PolicyMethod("IBPO, priced", ibpo.priced),
        PolicyMethod("IBPO, as published", ibpo.published),
        PolicyMethod("IBPO, as published, mixed", ibpo.mixed),
        PolicyMethod("IBPO, as published, ranked", ibpo.ranked),
    )
