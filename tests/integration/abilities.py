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
    streams_whole_thoughts: bool
    """Older releases may lose the end of a thought that they have in one chunk with its end mark."""
    shortens: bool
    """An output limit that does not fit beside the prompt is lowered. Older releases refuse the request."""


ABILITIES = {
    "oldest": Abilities(
        counts_thoughts=False,
        budgets_completions=False,
        hides_streams=False,
        streams_whole_thoughts=False,
        shortens=False,
    ),
    "newest": Abilities(
        counts_thoughts=True,
        budgets_completions=True,
        hides_streams=True,
        streams_whole_thoughts=True,
        shortens=True,
    ),
}
