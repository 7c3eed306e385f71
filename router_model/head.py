"""The trained difficulty model. Serving it needs NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.allocation import PriceTable, demand
from router_model.arrays import Singles
from router_model.compiled import fits, measured_estimator, prior_estimator, trunk_arrays
from router_model.encoders.base import Encoder, EncoderError, Features, Source
from router_model.encoders.ngrams import DENSE, FEATURE_VERSION, HASHED, ngram_features
from router_model.encoders.open import opened
from router_model.head_parts import Curves, TierMapping, Trunk, map_tiers, squared
from router_model.native.library import Kernel, TrunkArrays, kernel
from router_model.predictor import Evidence, Prediction, PromptEstimator, TierLength
from router_model.prior import Prior, PriorLadder
from router_model.prompts import fingerprints

ARTIFACTS = Path(__file__).parent / "artifacts"
_MIXED = 0.05  # weight of the prior from which on it is worth a warning
_LADDERS = 1024  # models × tier ladders remembered; a gateway has a handful


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head."""

    name: str
    digest: str
    trunk: Trunk
    sets: Mapping[str, Curves]
    """Curves by the name of the model they were measured on."""
    sample: Singles
    """Cross-fitted inputs of some training prompts, [N, H + R + DENSE], for price tables."""
    trained: NDArray[np.uint64]
    """`fingerprints` of all training prompts, ascending."""
    manifest: Mapping[str, Any]
    prior: Prior
    """Decides for models without curves."""
    encoder: Encoder = HASHED
    """The encoder it was trained with."""
    kernel: Kernel | None = field(default_factory=kernel)
    """Computes the estimates of single prompts above the hashed encoder; without it, NumPy does."""

    @property
    def version(self) -> str:
        """How decision records name it."""
        return f"{self.name}-{self.digest[:12]}"

    @classmethod
    def load(cls, directory: str | Path, source: Source | None = None, remembers: int = 1 << 17) -> Self:
        """Read an artefact.

        source: where its encoder is, unless it is the hashed one. remembers: number of embeddings kept.

        Raises: ArtifactError, for another FEATURE_VERSION, another encoder, or damaged files.
        """
        packed = artifact.pack_artifact(Path(directory))
        return cls.unpack(packed, str(directory), source, remembers)

    @classmethod
    def unpack(
        cls, packed: artifact.PackedHead, where: str, source: Source | None = None, remembers: int = 1 << 17
    ) -> Self:
        """The head in two files that were read, as `load` gives it. where: names it in errors.

        Raises: ArtifactError.
        """
        manifest, arrays, digest = artifact.unpack_artifact(packed, FEATURE_VERSION, where)
        try:
            encoder = opened(source, manifest.get("encoder", HASHED.identity), remembers)
        except EncoderError as error:
            raise artifact.ArtifactError(f"{where}: {error}") from None
        parts = {name: arrays[f"trunk.{name}"].astype(np.float32) for name in artifact.TRUNK}
        sample = arrays["sample"].astype(np.float32)
        trunk = Trunk(
            **parts,
            strange=float(manifest["strange"]),
            plane=arrays.get("trunk.plane"),
            examples=(examples := np.ascontiguousarray(sample[:, -DENSE:])),
            squares=squared(examples),
            reach=float(manifest.get("reach", math.inf)),
        )
        sets = {}
        for index, entry in enumerate(manifest["sets"]):
            parts = {name: arrays[f"set{index}.{name}"] for name in artifact.CURVES}
            if f"set{index}.by_length" in arrays:
                parts |= {name: arrays[f"set{index}.{name}"] for name in artifact.ALONE}
            else:
                parts |= _averages(parts, sample.mean(axis=0))
            sets[entry["name"]] = Curves(
                name=entry["name"],
                tiers=tuple(entry["tiers"]),
                shrink=float(entry["shrink"]),
                lengths=dict(sorted(entry["lengths"].items(), key=lambda item: float(item[1]))),
                **parts,
            )
        ngram_features("")  # builds the lookup tables now instead of during the first request
        known = Prior.of(arrays) if "prior.bias" in arrays else shipped_prior()
        trained = arrays["trained"]
        return cls(str(manifest["name"]), digest, trunk, sets, sample, trained, manifest, known, encoder)

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """See `Predictor.predict`; `match` says how tiers are matched to measured ones."""
        key = model, tuple(tiers)
        estimator = self._estimators.get(key)
        if estimator is None:
            if len(self._estimators) >= _LADDERS:
                self._estimators.clear()
            estimator = self._estimators[key] = self._estimator(self._mapping(*key))
        return estimator(prompt)

    def _estimator(self, mapping: TierMapping | PriorLadder) -> PromptEstimator:
        kernel = self.kernel if self.encoder is HASHED else None
        if isinstance(mapping, PriorLadder):
            compiled = kernel and prior_estimator(kernel, mapping)
            return compiled or partial(self._guess, mapping)
        if kernel is None or not fits(self.trunk, mapping):
            return partial(self._measured, mapping)
        return measured_estimator(kernel, self._trunk_arrays, mapping)

    def _guess(self, ladder: PriorLadder, prompt: str) -> Prediction:
        features = self.encoder.features(prompt)
        return ladder.predict(None if features is None else features.dense)

    def _measured(self, mapping: TierMapping, prompt: str) -> Prediction:
        features = self.encoder.features(prompt)
        seen = (self._length_alone(prompt), 1.0) if features is None else self.trunk.see(features)
        return self._predicted(mapping, *seen)

    def predict_features(self, features: Features, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """Like `predict`, from the features of a prompt that are at hand."""
        mapping = self._mapping(model, tuple(tiers))
        if isinstance(mapping, PriorLadder):
            return mapping.predict(features.dense)
        return self._predicted(mapping, *self.trunk.see(features))

    @staticmethod
    def _predicted(mapping: TierMapping, inputs: Singles, unknown: float) -> Prediction:
        correct, tokens = mapping.outcomes(inputs, unknown)
        p95 = np.minimum(np.ceil(tokens * mapping.spread), mapping.limit)
        right = tuple(correct.tolist())
        return Prediction(1 - right[0], right, tuple(tokens.tolist()), tuple(p95.tolist()), unknown > 0)

    def see(self, prompts: Sequence[str]) -> tuple[Singles, Singles]:
        """The inputs of the curves for each prompt, [N, H + R + DENSE], and how unknown each one is, [N].

        Raises: EncoderError.
        """
        matrix = self.encoder.encode_all(prompts)
        rows = [slice(*matrix.indptr[index : index + 2]) for index in range(len(prompts))]
        seen = [
            self.trunk.see(Features(matrix.indices[row], matrix.values[row], matrix.dense[index]))
            for index, row in enumerate(rows)
        ]
        inputs = np.array([each for each, _ in seen], np.float32).reshape(len(prompts), -1)
        return inputs, np.array([unknown for _, unknown in seen], np.float32)

    def _mapping(self, model: str, tiers: tuple[TierLength, ...]) -> TierMapping | PriorLadder:
        found = self.match(model, tiers)
        return PriorLadder.of(self.prior, tiers) if found is None else map_tiers(*found, tiers)

    @cached_property
    def _estimators(self) -> dict[tuple[str, tuple[TierLength, ...]], PromptEstimator]:
        return {}

    @cached_property
    def _trunk_arrays(self) -> TrunkArrays:
        return trunk_arrays(self.trunk)

    def trained_on(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these prompts were among the training data, [N]."""
        return np.isin(fingerprints(prompts), self.trained)

    @cached_property
    def _average(self) -> Singles:
        average: Singles = self.sample.mean(axis=0)
        return average

    def _length_alone(self, prompt: str) -> Singles:
        """Average inputs with the length of this prompt, for when its embedding is not at hand."""
        inputs = self._average.copy()
        inputs[-DENSE] = (math.log1p(len(prompt)) - self.trunk.mean[0]) / self.trunk.scale[0]
        return inputs

    def match(self, model: str, tiers: Sequence[TierLength]) -> tuple[Curves, list[int] | None] | None:
        """The curves of a model and, where its tiers are known by name, their columns; None without curves.

        Tiers that are not known by name are interpolated by length, if the curves have lengths.
        """
        names = [tier.name for tier in tiers if tier.name is not None]
        own = self.sets.get(model)
        if own is None:
            return None
        if set(names) <= set(own.tiers):
            return own, [own.tiers.index(name) for name in names]
        return (own, None) if own.lengths else None

    def evidence(self, model: str, tiers: Sequence[TierLength]) -> Evidence:
        """What the estimates for a model rest on."""
        if self.match(model, tiers) is None:
            return Evidence("prior", 0, 1.0)
        prompts = int(self.manifest.get("data", {}).get(model, {}).get("prompts", 0))
        pseudo = float(self.manifest.get("metrics", {}).get(model, {}).get("prior", {}).get("correct", 0.0))
        share = pseudo / (prompts + pseudo) if pseudo else 0.0
        return Evidence("mixed" if share >= _MIXED else "measured", prompts, share)

    def caveat(self, model: str, tiers: Sequence[TierLength]) -> str | None:
        """What to know about a model's estimates if it was not measured at exactly these tiers."""
        found = self.match(model, tiers)
        if found is None:
            return (
                f"the head {self.name} never saw the model {model}: it is decided by the prior, which knows"
                " reasoning models in general; `thinkmeter calibrate` teaches the head this model"
            )
        _, prompts, share = self.evidence(model, tiers)
        if share >= _MIXED:
            return (
                f"the head {self.name} knows {prompts:,} outcomes of the model {model}: the prior still"
                f" weighs {share:.0%} in its estimates; `thinkmeter calibrate` with more outcomes replaces it"
            )
        if found[1] is not None:
            return None
        longest = max(found[0].lengths.values())
        beyond = self.beyond(model, tiers)
        how = f"the tiers of the model {model} are interpolated by length between those that were measured"
        if beyond:
            how += f", and beyond {longest:,.0f} reasoning tokens ({', '.join(beyond)}) extrapolated"
        return f"{how}; `thinkmeter calibrate` measures them"

    def beyond(self, model: str, tiers: Sequence[TierLength]) -> list[str]:
        """The named tiers of a model that think longer than it was measured at, so that they are guessed."""
        found = self.match(model, tiers)
        if found is None or found[1] is not None:
            return []
        longest = max(found[0].lengths.values())
        return [tier.name for tier in tiers if tier.name and tier.thinking > longest]

    def price_table(self, model: str, tiers: Sequence[TierLength], points: int = 64) -> PriceTable | None:
        """λ*(B) for these tiers on the mix of prompts that the head was trained on."""
        mapping = self._mapping(model, tuple(tiers))
        if isinstance(mapping, PriorLadder):
            counts = self.sample[:, -DENSE:] * self.trunk.scale + self.trunk.mean
            correct, tokens = mapping.outcomes(self.prior.read(counts))
        else:
            correct, tokens = mapping.outcomes(self.sample)
        budgets, prices = demand(correct, tokens)
        shown = (
            np.unique(np.linspace(0, len(budgets) - 1, points).astype(np.int64)) if len(budgets) else slice(0)
        )
        return PriceTable.of_points(budgets[shown], prices[shown])


def lacks(head: Head, asked: Mapping[str, Sequence[TierLength]], replaced: Head | None) -> str | None:
    """What a head does not know of the models that it is asked about; None if it can decide for them.

    It must know one of them at least, and no less than the head that it would replace.
    """
    known = [model for model, tiers in asked.items() if head.match(model, tiers)]
    if asked and not known:
        return f"it knows {', '.join(head.sets) or 'no model'}, and none of {', '.join(asked)} at these tiers"
    for model, tiers in asked.items():
        if model not in known and replaced is not None and replaced.match(model, tiers):
            return f"it does not know {model}, which {replaced.version} knows"
        if beyond := head.beyond(model, tiers):
            return f"{model} was not measured up to {', '.join(beyond)}"
    return None


@cache
def shipped_prior() -> Prior:
    """The prior of the head `general`, for heads that were not trained on tables of real thinking."""
    return Prior.of(artifact.read_artifact(ARTIFACTS / "general", FEATURE_VERSION)[1])


def _averages(curves: Mapping[str, Singles], inputs: Singles) -> dict[str, Singles]:
    """What stands in for the curves on length alone in a head trained before there were any: its averages."""
    logits, logs = np.split(inputs @ curves["weights"] + curves["bias"], 2)
    return {"average": 1 / (1 + np.exp(-logits)), "by_length": np.stack([logs, np.zeros_like(logs)])}


def load_named(name: str | Path, source: Source | None = None, remembers: int = 1 << 17) -> Head:
    """Load the shipped head `general` or `tiny`, or the artefact in a directory; see `Head.load`."""
    shipped = ARTIFACTS / str(name)
    return Head.load(shipped if str(name) in {"general", "tiny"} else name, source, remembers)
