"""What the supported releases of vLLM can and cannot do. A test that meets a difference checks both sides."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Abilities:
    """How a release answers where releases differ."""

    counts_thoughts: bool
    """The usage has the tokens of the thought."""
    budgets_completions: bool
    """Legacy completions take `thinking_token_budget`, which older releases ignore."""
    hides_streams: bool
    """`include_reasoning: false` hides the thought of a stream too. Older releases send it."""
    shortens: bool
    """An output limit that does not fit beside the prompt is lowered. Older releases refuse the request."""


ABILITIES = {
    "oldest": Abilities(
        counts_thoughts=False, budgets_completions=False, hides_streams=False, shortens=False
    ),
    "newest": Abilities(counts_thoughts=True, budgets_completions=True, hides_streams=True, shortens=True),
}
