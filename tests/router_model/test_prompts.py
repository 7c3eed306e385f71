"""Hashes of prompts depend on nothing but the normalised prompt and the seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router_model.prompts import normalised, places


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30), st.integers(-(2**62), 2**62))
def test_places_depend_on_the_normalised_prompt(prompts: list[str], seed: int) -> None:
    """A prompt's number in [0, 1) depends on the seed, not on case, spacing or other prompts."""
    place = places(prompts, seed)

    assert ((place >= 0) & (place < 1)).all()
    assert place.tolist() == [places([f"  {normalised(prompt)} "], seed)[0] for prompt in prompts]
    assert place.tolist() != places(prompts, seed + 1).tolist()
