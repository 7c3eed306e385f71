"""The compiled kernel's estimates for one model and ladder: those of NumPy to 1e-5, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from ctypes import byref, c_double
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.encoders.ngrams import DENSE, SIZE
from router_model.encoders.scanning import kernel_tables, kernel_text
from router_model.head_parts import BELIEVED, RAMP, TierMapping, Trunk
from router_model.native.library import LANES, WIDEST, Kernel, LadderArrays, MappingArrays, TrunkArrays
from router_model.predictor import Prediction, PromptEstimator
from router_model.prior import LN_GRID, PriorLadder

_PRIOR = ("mean", "scale", "weights", "bias", "low", "high")
_LAW = ("steepness", "repaired", "cut", "forced", "scatter")
_TRUNK = ("rarity", "mean", "scale", "latents", "counts", "shift", "hidden", "hidden_bias")
_CURVES = ("weights", "bias", "low", "high", "offset", "average", "by_length")


def prior_estimator(kernel: Kernel, ladder: PriorLadder) -> PromptEstimator | None:
    """The prior's estimates; None if the kernel cannot read them."""
    prior = ladder.prior
    if _shapes(prior, _PRIOR) != [(DENSE,), (DENSE,), (DENSE, 3), (3,), (3,), (3,)]:
        return None
    arrays = LadderArrays(
        **_doubles(prior, _PRIOR),
        **{name: getattr(prior, name) for name in _LAW},
        **_doubles(ladder, ("budgets", "limit")),
        lengths=np.ascontiguousarray(ladder.lengths.T),
        losses=np.ascontiguousarray(ladder.losses.T),
        grid=LN_GRID,
        top=ladder.top,
        rungs=len(ladder.budgets),
        thinking=len(ladder.thinking),
    )
    return _estimator(kernel.prior, (arrays,), len(ladder.budgets), prior=True)


def measured_estimator(kernel: Kernel, trunk: TrunkArrays, mapping: TierMapping) -> PromptEstimator:
    """The estimates for a measured model, which `fits`."""
    curves, between = mapping.curves, mapping.between
    optional: dict[str, NDArray[Any]] = {}
    if between is not None:
        optional |= {"above": between.above.astype(np.int64)} | _doubles(between, ("gained", "spent"))
    if mapping.blend is not None:
        optional |= _doubles(mapping, ("blend",))
    arrays = MappingArrays(
        **_singles(curves, _CURVES),
        **_doubles(mapping, ("limit", "spread")),
        **optional,
        columns=mapping.columns.astype(np.int64),
        shrink=curves.shrink,
        believed=BELIEVED,
        ramp=RAMP,
        tiers=len(curves.tiers),
        used=len(mapping.columns),
        rungs=len(mapping.limit),
    )
    return _estimator(kernel.measured, (trunk, arrays), len(mapping.limit), prior=False)


def trunk_arrays(trunk: Trunk) -> TrunkArrays:
    """A trunk for the kernel; all ladders share it."""
    places = 0 if math.isinf(trunk.reach) else -(-len(trunk.examples) // LANES) * LANES
    chosen = np.arange(places) % max(len(trunk.examples), 1)
    return TrunkArrays(
        **_singles(trunk, _TRUNK),
        examples=np.ascontiguousarray(trunk.examples[chosen].T),
        squares=trunk.squares[chosen],
        strange=trunk.strange,
        reach=trunk.reach,
        unseen=artifact.UNSEEN,
        rank=trunk.latents.shape[1],
        units=trunk.hidden.shape[1],
        places=places,
    )


def fits(trunk: Trunk, mapping: TierMapping) -> bool:
    """Whether the kernel can read this trunk and these curves."""
    tiers = len(mapping.curves.tiers)
    (rank,), (units,) = trunk.shift.shape, trunk.hidden_bias.shape
    below = rank + DENSE
    trunks = [(SIZE,), (DENSE,), (DENSE,), (SIZE, rank), (DENSE, rank), (rank,), (below, units), (units,)]
    curves = [(units + below, 2 * tiers), (2 * tiers,), *[(tiers,)] * 4, (2, tiers)]
    return (
        trunk.plane is None
        and _shapes(trunk, _TRUNK) == trunks
        and trunk.examples.shape[1:] == (DENSE,)
        and _shapes(mapping.curves, _CURVES) == curves
        and mapping.spread.shape == mapping.limit.shape
        and max(rank, units, tiers) <= WIDEST
    )


def _estimator(
    function: Callable[..., None], parts: Iterable[Any], rungs: int, *, prior: bool
) -> PromptEstimator:
    """Calls a function of the kernel. It writes three numbers per rung, and how unknown the prompt is."""
    arrays = [byref(part) for part in (kernel_tables(), *parts)]  # a reference keeps its part alive
    room, row = c_double * (3 * rungs + 1), Struct(f"{rungs}d")
    read, width, last = row.unpack_from, row.size, 3 * rungs

    def predict(prompt: str) -> Prediction:
        text, out = kernel_text(prompt), room()
        function(*arrays, text, len(text), len(prompt), out)
        right = read(out)
        return Prediction(1 - right[0], right, read(out, width), read(out, 2 * width), out[last] > 0, prior)

    return predict


def _shapes(owner: object, names: Iterable[str]) -> list[tuple[int, ...]]:
    return [getattr(owner, name).shape for name in names]


def _doubles(owner: object, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    return {name: np.ascontiguousarray(getattr(owner, name), np.float64) for name in names}


def _singles(owner: object, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    return {name: np.ascontiguousarray(getattr(owner, name), np.float32) for name in names}
