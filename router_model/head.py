"""The router head: what any difficulty model must answer, and the trained one. Serving needs numpy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.allocation import PriceTable, demand
from router_model.encoders.base import HASHED, Encoder, EncoderError, Source, opened
from router_model.encoders.ngrams import FEATURE_VERSION, Features, encode
from router_model.training.outcomes import places

Floats = NDArray[np.float64]
Single = NDArray[np.float32]

ARTIFACTS = Path(__file__).parent / "artifacts"
_CLIP = 4.0  # standard deviations beyond which a count says no more
_PLANS = 1024  # models × tier ladders remembered; a gateway has a handful
_OCTAVES = 2.0  # how far beyond the longest measured tier the curves may go on rising


class TierLength(NamedTuple):
    """One tier of a model as a predictor sees it; lengths in tokens."""

    name: str
    thinking: int
    answer: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """Estimates for one prompt; `correct`, `tokens` and `p95` run parallel to the tiers asked about.

    difficulty: 0 (trivial) to 1 (hopeless without thinking): 1 − P(right at the cheapest tier).
    correct: P(right answer | prompt, tier), each in [0, 1].
    tokens: E[completion tokens | prompt, tier], reasoning included.
    p95: 95 % of completions are no longer than this; empty where the predictor does not know.
    abstains: the prompt is too unlike the training data; the other fields are then the predictor's averages.
    """

    difficulty: float
    correct: tuple[float, ...]
    tokens: tuple[float, ...]
    p95: tuple[float, ...] = ()
    abstains: bool = False


class Predictor(Protocol):
    """Pure and synchronous: it runs on the event loop, so it must stay far below a millisecond."""

    @property
    def version(self) -> str:
        """Names the estimator in every decision record."""
        ...

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """Estimate for `tiers` of `model`, cheapest first."""
        ...

    def price_table(self, model: str, tiers: Sequence[TierLength]) -> PriceTable | None:
        """λ*(B) on the prompts the predictor was made from; None where it was made from none."""
        ...


@dataclass(frozen=True, slots=True)
class Curves:
    """How the tiers of one model respond to what the trunk sees: the part that `calibrate` fits.

    weights [inputs, 2T], bias [2T]: logits of P(right), then logarithms of E[tokens]; by tier.
    low, high: fewest and most tokens seen, [T]. spread: p95 / mean, [T].
    shrink in [0, 1]: how much of the predicted differences between tiers held on prompts not trained on;
    the rest is replaced by `offset` [T], the tiers' mean differences.
    lengths: reasoning tokens of some tiers, rising; only curves with such serve models not measured.
    bound: they serve no model but the one that they are called after.
    """

    name: str
    tiers: tuple[str, ...]
    weights: Single
    bias: Single
    low: Single
    high: Single
    spread: Single
    shrink: float
    offset: Single
    lengths: Mapping[str, float] = field(default_factory=dict)
    bound: bool = False

    def outcomes(self, inputs: Single) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] for inputs [..., inputs], each [..., T]."""
        raw = inputs @ self.weights + self.bias
        count = len(self.tiers)
        correct = 1 / (1 + np.exp(-np.minimum(np.maximum(raw[..., :count], -30), 30)))  # np.clip is slower
        centre = correct.mean(axis=-1, keepdims=True)
        gain = self.shrink * (correct - centre) + (1 - self.shrink) * self.offset
        tokens = np.clip(np.exp(np.minimum(raw[..., count:], 20)), self.low, self.high)
        return np.clip(centre + gain, 0, 1).astype(np.float64), tokens.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Trunk:
    """Text to inputs of the curves, shared by all models.

    rarity [SIZE]: inverse document frequency, 0 where never seen. mean, scale [DENSE]: of the counts.
    latents [SIZE, R], counts [DENSE, R], shift [R]: the linear map to the latent difficulties z.
    hidden [R + DENSE, H], hidden_bias [H]: a layer of tanh above z and the counts.
    strange: mean rarity, or share outside of the plane, beyond which a prompt counts as unlike the training
    data.
    plane [K, SIZE]: where the features are an embedding, the leading directions of the training data.
    """

    rarity: Single
    mean: Single
    scale: Single
    latents: Single
    counts: Single
    shift: Single
    hidden: Single
    hidden_bias: Single
    strange: float
    plane: Single | None = None

    def see(self, features: Features) -> tuple[Single, float]:
        """The inputs [H + R + DENSE] and how unlike the training data the prompt is (`strange`)."""
        seen = self.rarity.take(features.indices)  # half the time of indexing
        values = features.values * seen
        length = math.sqrt(float(values @ values)) or 1.0
        counts = np.clip((features.dense - self.mean) / self.scale, -_CLIP, _CLIP)
        latents = (
            (values / length) @ self.latents.take(features.indices, 0) + counts @ self.counts + self.shift
        )
        strangeness = rarity(seen) if self.plane is None else outside(values, self.plane)
        return self.above(np.concatenate((latents, counts))), strangeness

    def above(self, inputs: Single) -> Single:
        """Put the hidden layer in front of z and counts, [..., R + DENSE] -> [..., H + R + DENSE]."""
        return np.concatenate((np.tanh(inputs @ self.hidden + self.hidden_bias), inputs), axis=-1)


def rarity(seen: Single) -> float:
    """Mean inverse document frequency of a prompt's n-grams; one never seen counts as `artifact.UNSEEN`."""
    if not len(seen):
        return math.inf
    return float(seen.sum() + artifact.UNSEEN * (len(seen) - np.count_nonzero(seen))) / len(seen)


def outside(vector: Single, plane: Single) -> float:
    """Share of a unit vector's square outside of orthonormal directions [K, D], from 0 to 1.

    The residual of ViM (Wang et al., CVPR 2022).
    """
    inside = plane @ vector
    return 1 - float(inside @ inside)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model's tiers are read off a set of curves, worked out once.

    columns: the measured tiers used. blend [asked, columns]: interpolation between them, None where the tiers
    asked about are the columns. limit: completion tokens that each tier may write.
    """

    curves: Curves
    columns: NDArray[np.intp]
    blend: Floats | None
    limit: Floats
    spread: Floats

    def outcomes(self, inputs: Single) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] for inputs [..., inputs], each [..., asked]."""
        correct, tokens = self.curves.outcomes(inputs)
        correct, tokens = correct.take(self.columns, -1), tokens.take(self.columns, -1)
        if self.blend is not None:
            rising, longer = np.maximum.accumulate(correct, -1), np.maximum.accumulate(tokens, -1)
            correct = np.minimum(np.round(rising @ self.blend.T, 9), 1.0)  # rounded: equal stays equal
            tokens = np.round(np.exp(np.log(longer) @ self.blend.T), 6)
        return correct, np.minimum(tokens, self.limit)


def plan_of(curves: Curves, columns: list[int] | None, tiers: Sequence[TierLength]) -> Plan:
    """Tiers by name (columns), or between those measured: linear in ln(1 + reasoning tokens), never falling.

    Beyond the longest measured tier the curves go on at half the slope of the last interval, for at most two
    octaves: nothing was measured there. Tokens never exceed what a tier may write.
    """
    limit = np.array([max(tier.thinking + tier.answer, 1) for tier in tiers], float)
    if columns is not None:
        return Plan(curves, np.array(columns), None, limit, curves.spread[columns].astype(float))
    known = [curves.tiers.index(tier) for tier in curves.lengths]
    at = np.log1p(list(curves.lengths.values()))
    wanted = np.log1p([max(tier.thinking, 0) for tier in tiers])
    blend = np.stack([np.interp(wanted, at, unit) for unit in np.eye(len(at))], axis=1)
    spread: Floats = blend @ curves.spread[known].astype(float)
    beyond = np.clip(wanted - at[-1], 0, _OCTAVES * math.log(2)) / 2 / max(at[-1] - at[-2], 1e-9)
    blend[:, -1] += beyond
    blend[:, -2] -= beyond
    return Plan(curves, np.array(known), blend, limit, spread)


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head.

    sample [N, H + R + DENSE]: inputs of training prompts, cross-fitted, for price tables.
    trained: `fingerprints` of all training prompts, ascending.
    encoder: the one it was trained with.
    """

    name: str
    digest: str
    trunk: Trunk
    sets: Mapping[str, Curves]
    sample: Single
    trained: NDArray[np.uint64]
    manifest: Mapping[str, Any]
    encoder: Encoder = HASHED

    @property
    def version(self) -> str:
        """As decision records name it."""
        return f"{self.name}-{self.digest[:12]}"

    @classmethod
    def load(cls, directory: str | Path, source: Source | None = None, remembers: int = 1 << 17) -> Self:
        """Read an artefact; `source`: where its encoder is, if it was trained with one that has a place.

        remembers: embeddings kept. Raises `artifact.ArtifactError` for another FEATURE_VERSION, another
        encoder, or damaged files.
        """
        manifest, arrays, digest = artifact.read(Path(directory), FEATURE_VERSION)
        try:
            encoder = opened(source, manifest.get("encoder", HASHED.identity), remembers)
        except EncoderError as error:
            raise artifact.ArtifactError(f"{directory}: {error}") from None
        parts = {name: arrays[f"trunk.{name}"].astype(np.float32) for name in artifact.TRUNK}
        trunk = Trunk(**parts, strange=float(manifest["strange"]), plane=arrays.get("trunk.plane"))
        sets = {}
        for at, described in enumerate(manifest["sets"]):
            parts = {name: arrays[f"set{at}.{name}"] for name in artifact.CURVES}
            sets[described["name"]] = Curves(
                name=described["name"],
                tiers=tuple(described["tiers"]),
                shrink=float(described["shrink"]),
                bound=bool(described.get("bound", False)),
                lengths=dict(sorted(described["lengths"].items(), key=lambda item: float(item[1]))),
                **parts,
            )
        encode("")  # builds the lookup tables now, not during the first request
        sample = arrays["sample"].astype(np.float32)
        return cls(str(manifest["name"]), digest, trunk, sets, sample, arrays["trained"], manifest, encoder)

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """See `Predictor.predict`. How tiers are matched to measured ones: see `match`."""
        inputs, abstains = self._average, True
        features = self.encoder.features(prompt)
        if features is not None:
            seen, strangeness = self.trunk.see(features)
            if strangeness <= self.trunk.strange:
                inputs, abstains = seen, False
        plan = self._plan(model, tuple(tiers))
        correct, tokens = plan.outcomes(inputs)
        p95 = np.minimum(np.ceil(tokens * plan.spread), plan.limit)
        right = tuple(correct.tolist())
        return Prediction(1 - right[0], right, tuple(tokens.tolist()), tuple(p95.tolist()), abstains)

    def see(self, prompts: Sequence[str]) -> Single:
        """What the curves see of each prompt, [N, H + R + DENSE]. Raises EncoderError."""
        matrix = self.encoder.encode_all(prompts)
        rows = [slice(*matrix.indptr[at : at + 2]) for at in range(len(prompts))]
        seen = [
            self.trunk.see(Features(matrix.indices[row], matrix.values[row], matrix.dense[at]))[0]
            for at, row in enumerate(rows)
        ]
        return np.array(seen, np.float32).reshape(len(prompts), -1)

    def _plan(self, model: str, tiers: tuple[TierLength, ...]) -> Plan:
        plan = self._plans.get((model, tiers))
        if plan is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[model, tiers] = plan_of(*self.match(model, tiers), tiers)
        return plan

    @cached_property
    def _plans(self) -> dict[tuple[str, tuple[TierLength, ...]], Plan]:
        return {}

    def trained_on(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these prompts, normalised, were among the training data."""
        return np.isin(fingerprints(prompts), self.trained)

    @cached_property
    def _average(self) -> Single:
        average: Single = self.sample.mean(axis=0)
        return average

    def match(self, model: str, tiers: Sequence[TierLength]) -> tuple[Curves, list[int] | None]:
        """The curves for a model's tiers and, where tiers are known by name, their columns.

        The set called like the model, else any set not bound to another that knows all tier names; else the
        reference set, in which lengths are interpolated. Raises ArtifactError where the head has none.
        """
        names = [tier.name for tier in tiers]
        named = self.sets.get(model)
        free = [curves for curves in self.sets.values() if not curves.bound]
        for curves in (*([named] if named else []), *free):
            if set(names) <= set(curves.tiers):
                return curves, [curves.tiers.index(name) for name in names]
        for curves in (*([named] if named else []), *free):
            if curves.lengths:
                return curves, None
        raise artifact.ArtifactError(
            f"{self.version} knows no tiers called {', '.join(names)} and no lengths to compare them with;"
            f" calibrate it for {model}"
        )

    def caveat(self, model: str, tiers: Sequence[TierLength]) -> str | None:
        """What to know of where a model's estimates come from; None where it was measured."""
        curves, columns = self.match(model, tiers)
        if curves.name == model and columns is not None:
            return None
        if columns is not None:
            how = f"its tiers are taken for those of the same names that were measured on {curves.name}"
        else:
            longest = max(curves.lengths.values())
            beyond = [tier.name for tier in tiers if tier.thinking > longest]
            how = f"its tiers are interpolated by length between those measured on {curves.name}"
            if beyond:
                how += f", and beyond {longest:,.0f} reasoning tokens ({', '.join(beyond)}) extrapolated"
        return f"the head {self.name} never saw the model {model}: {how}; `thinkmeter calibrate` measures it"

    def price_table(self, model: str, tiers: Sequence[TierLength], points: int = 64) -> PriceTable | None:
        """λ*(B) for these tiers on the mix of prompts that the head was trained on."""
        correct, tokens = self._plan(model, tuple(tiers)).outcomes(self.sample)
        budgets, prices = demand(correct, tokens)
        at = (
            np.unique(np.linspace(0, len(budgets) - 1, points).astype(np.int64)) if len(budgets) else slice(0)
        )
        return PriceTable.of_points(budgets[at], prices[at])


def fingerprints(prompts: Sequence[str]) -> NDArray[np.uint64]:
    """53-bit hashes of the normalised prompts: enough to tell whether one was trained on, and no more."""
    return (places(prompts, -1) * 2**53).astype(np.uint64)


def load_named(name: str | Path, source: Source | None = None, remembers: int = 1 << 17) -> Head:
    """The shipped head `general` or `tiny`, or the artefact in a directory; see `Head.load`."""
    shipped = ARTIFACTS / str(name)
    return Head.load(shipped if str(name) in {"general", "tiny"} else name, source, remembers)
