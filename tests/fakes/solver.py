"""
A backend whose answers are right or wrong as a test decides. FOR TESTS ONLY.

A prompt `solve N` is answered by `N` if its thought may have as many tokens as the prompt needs, which is
`needs(N)`, and by `wrong` otherwise. Everything else is as in `tests.fakes.backend`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.fakes.backend import Backend
from tests.fakes.connection import Request
from tests.fakes.fault import Fault

ANSWER = 5  # tokens


def hard(number: int) -> int:
    """One prompt in three is solved without a thought, one with a short thought, one with a long thought."""
    return (0, 16, 256)[number % 3]


class Solver(Backend):
    """See the module's docstring."""

    def __init__(
        self,
        served_name: str = "tiny",
        *,
        needs: Callable[[int], int] = hard,
        slow_ms: float = 0,
        **given: Any,
    ) -> None:
        super().__init__(served_name, **given)
        self.needs, self.slow_ms = needs, slow_ms
        self.asked: Counter[tuple[int, int]] = Counter()
        """By number and thinking budget."""

    def _fault_for(self, request: Request) -> Fault:
        fault = super()._fault_for(request)
        asked = request.json
        if fault != Fault() or not isinstance(asked, dict) or "messages" not in asked:
            return fault
        found = re.search(r"solve (\d+)", str(asked["messages"][-1]["content"]))
        if found is None:
            return fault
        number, budget = int(found[1]), asked.get("thinking_token_budget") or 0
        self.asked[number, budget] += 1
        right = budget >= self.needs(number)
        thought = min(budget, self.needs(number) + 4) if budget else 0
        usage = {
            "prompt_tokens": 5,
            "completion_tokens": ANSWER + thought,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        message = {"role": "assistant", "content": f"{number}" if right else "wrong"}
        return Fault(
            body={"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage},
            delay_ms=self.slow_ms,
        )


async def _serve(port: int, slow_ms: float) -> None:
    async with Solver(port=port, slow_ms=slow_ms):
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slow-ms", type=float, default=0)
    given = parser.parse_args()
    asyncio.run(_serve(given.port, given.slow_ms))
