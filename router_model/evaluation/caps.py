"""One output cap for everybody, at lengths between those that were measured.

Where a table holds one run per prompt, cut at several caps, a cap between two of them needs no measurement:
a run of L tokens uses min(L, N) at cap N, is as right as in full if it ends before N, and otherwise as right
as at the next shorter measured cap.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from router_model.arrays import Floats
from router_model.evaluation.methods import Estimates
from router_model.training.outcomes import OutcomeTable


def uniform_caps(table: OutcomeTable, caps: tuple[int, ...], between: int = 3) -> Estimates:
    """Outcomes of every measured cap and of `between` further ones in each gap, [N, K], caps rising.

    caps: the cap of each tier of the table, rising. The longest tier says how long each run is. Further caps
    are spaced evenly in their logarithms.
    """
    full_right, full_length = table.correct[:, -1], table.tokens[:, -1]
    correct: list[Floats] = [table.correct[:, 0]]
    tokens: list[Floats] = [table.tokens[:, 0]]
    for tier, (low, high) in enumerate(pairwise(caps)):
        for cap in np.geomspace(low, high, between + 2)[1:-1].round():
            ended = full_length < cap
            correct.append(np.where(ended, full_right, table.correct[:, tier]))
            tokens.append(np.minimum(full_length, cap))
        correct.append(table.correct[:, tier + 1])
        tokens.append(table.tokens[:, tier + 1])
    return Estimates(np.stack(correct, axis=1), np.stack(tokens, axis=1))
