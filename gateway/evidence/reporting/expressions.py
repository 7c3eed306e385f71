"""What SQL computes of one decision for the report: its minimum, its money, its GPU hours."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Double, Integer, String, and_, case, cast, func, literal, null, text

from gateway.config.costs import CostSettings
from gateway.evidence.schema import decisions

_MILLION = 1e6


def one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """1 where it holds, else 0."""
    return case((condition, 1), else_=0)


def minimum_of_request(*, sqlite: bool) -> tuple[ColumnElement[bool], ColumnElement[int]]:
    """Whether a request has a minimum above the shortest rung, and which. It is in the JSON of `rungs`."""
    rungs = decisions.c.rungs
    if sqlite:
        first = func.instr(rungs, b'"lowest":0,')
        given = func.instr(rungs, b'"lowest":')
        lowest = func.json_extract(cast(rungs, String), "$.lowest")
    else:
        as_text = func.convert_from(rungs, "UTF8")
        first, given = func.strpos(as_text, '"lowest":0,'), func.strpos(as_text, '"lowest":')
        lowest = func.jsonb_extract_path_text(as_text.op("::")(text("jsonb")), "lowest")
    return and_(given > 0, first == 0), cast(lowest, Integer)


def _by_model(amounts: dict[str, ColumnElement[float]]) -> ColumnElement[float]:
    """The amount of a request by its model; NULL for other models."""
    if not amounts:
        return cast(null(), Double)
    return case(*((decisions.c.model == model, amount) for model, amount in amounts.items()))


def money_of_request(costs: CostSettings) -> ColumnElement[float]:
    """NULL if the completion tokens are unknown. Unknown prompt tokens count as none."""
    prompt, completion = func.coalesce(decisions.c.prompt_tokens, 0), decisions.c.completion_tokens
    each_model = {
        model: prompt * literal(each.prompt / _MILLION, Double)
        + completion * literal((each.completion + each.gpu_hours * costs.gpu_hour) / _MILLION, Double)
        for model, each in costs.models.items()
    }
    return _by_model(each_model)


def gpu_hours_of_request(costs: CostSettings) -> ColumnElement[float]:
    """NULL if the completion tokens are unknown."""
    each_model = {
        model: decisions.c.completion_tokens * literal(each.gpu_hours / _MILLION, Double)
        for model, each in costs.models.items()
    }
    return _by_model(each_model)
