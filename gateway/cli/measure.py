"""The command `measure`: every prompt at every rung, graded, and what a router could gain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.heads import fail
from gateway.cli.terminal import ConfigArgument

commands = typer.Typer()

_Source = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="A .jsonl, .json, .csv or .parquet file, or `store` for prompts of the gateway's own traffic.",
    ),
]
_ModelName = Annotated[str | None, typer.Option("--model", help="The model; default the only one.")]
_Rungs = Annotated[
    str | None,
    typer.Option(
        "--rungs",
        metavar="NAME,...",
        help="Names or thinking tokens of rungs, or `all`; default the named tiers.",
    ),
]
_Samples = Annotated[
    int, typer.Option("--samples", min=1, max=1000, help="Answers to each prompt at each rung.")
]
_Grade = Annotated[
    str | None,
    typer.Option(
        "--grade",
        metavar="GRADER",
        help="How answers are graded; default `auto`, or `agreement` if no prompt has a reference answer.",
    ),
]
_Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Measure with so many prompts, drawn.")]
_Seed = Annotated[int, typer.Option("--seed", help="Draws the order of the prompts.")]
_Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="TABLE.jsonl", help="The outcome table; default MODEL.jsonl."),
]
_Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        min=1,
        max=4096,
        help="Requests at a time; default 32 for each replica, 256 at most.",
    ),
]
_Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="Default: the backend's own.")
]
_FieldsOption = Annotated[
    str | None,
    typer.Option("--fields", metavar="JSON", help='Further fields of every request, such as {"top_p": 0.9}.'),
]
_BudgetName = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="NAME[/HOLDER]", help="Count the tokens under this budget of the configuration."
    ),
]
_Difference = Annotated[
    float,
    typer.Option(
        "--difference", min=0.1, max=50, help="Points for which to say how many prompts are needed."
    ),
]
_Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Then fit a head to the outcomes, and put it in place.")
]
_GradeOnly = Annotated[
    bool, typer.Option("--grade-only", help="Ask nothing; grade the answers that are there.")
]
_Regrade = Annotated[bool, typer.Option("--regrade", help="Grade again what this grader has graded before.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and ask nothing.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@commands.command("measure")
def measure_command(
    *,
    config: ConfigArgument,
    source: _Source,
    model: _ModelName = None,
    rungs: _Rungs = None,
    samples: _Samples = 1,
    grade: _Grade = None,
    limit: _Limit = None,
    seed: _Seed = 0,
    out_file: _Out = None,
    concurrency: _Concurrency = None,
    temperature: _Temperature = None,
    fields: _FieldsOption = None,
    budget: _BudgetName = None,
    difference: _Difference = 2.0,
    calibrate: _Calibrate = False,
    grade_only: _GradeOnly = False,
    regrade: _Regrade = False,
    dry_run: _DryRun = False,
    yes: _Yes = False,
) -> None:
    """Measure a model: ask every prompt at every rung, grade the answers, and say what a router could gain.

    It can be stopped at any time. The same command goes on where it was.
    """
    from gateway.cli.measure_run import MeasureOptions, run_measure

    options = MeasureOptions(
        config=config,
        source=source,
        model=model,
        rungs=rungs,
        samples=samples,
        grade=grade,
        limit=limit,
        seed=seed,
        out=out_file,
        concurrency=concurrency,
        fields=_fields(temperature, fields),
        budget=budget,
        difference=difference / 100,
        calibrate=calibrate,
        grade_only=grade_only,
        regrade=regrade,
        dry_run=dry_run,
        yes=yes,
    )
    run_measure(options)


_OURS = frozenset({"model", "messages", "stream", "stream_options", "n", "best_of", "stop", "tools"})
"""Fields that the command sets itself, and those that it cannot send as serving does."""


def _fields(temperature: float | None, written: str | None) -> dict[str, Any]:
    """The further fields of every request."""
    fields: Any = {}
    if written is not None:
        try:
            fields = json.loads(written)
        except ValueError as error:
            fail(f"--fields: no JSON: {error}")
        if not isinstance(fields, dict):
            fail("--fields: a JSON object is expected")
    if taken := sorted(_OURS & fields.keys()):
        fail(f"--fields: {taken[0]} cannot be given here")
    given: dict[str, Any] = fields
    return given if temperature is None else given | {"temperature": temperature}
