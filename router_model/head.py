"""The trained difficulty model. Serving it needs NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.allocation import PriceTable, demand
from router_model.arrays import Singles
from router_model.encoders.base import Encoder, EncoderError, Features, Source
from router_model.encoders.ngrams import DENSE, FEATURE_VERSION, HASHED, ngram_features
from router_model.encoders.open import opened
from router_model.head_parts import Curves, TierMapping, Trunk, map_tiers
from router_model.predictor import Prediction, TierLength
from router_model.prompts import fingerprints

ARTIFACTS = Path(__file__).parent / "artifacts"
_MAPPINGS = 1024  # models × tier ladders remembered; a gateway has a handful


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
    encoder: Encoder = HASHED
    """The encoder it was trained with."""

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
        manifest, arrays, digest = artifact.read_artifact(Path(directory), FEATURE_VERSION)
        try:
            encoder = opened(source, manifest.get("encoder", HASHED.identity), remembers)
        except EncoderError as error:
            raise artifact.ArtifactError(f"{directory}: {error}") from None
        parts = {name: arrays[f"trunk.{name}"].astype(np.float32) for name in artifact.TRUNK}
        sample = arrays["sample"].astype(np.float32)
        trunk = Trunk(
            **parts,
            strange=float(manifest["strange"]),
            plane=arrays.get("trunk.plane"),
            examples=sample[:, -DENSE:],
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
                bound=bool(entry.get("bound", False)),
                lengths=dict(sorted(entry["lengths"].items(), key=lambda item: float(item[1]))),
                **parts,
            )
        ngram_features("")  # builds the lookup tables now instead of during the first request
        return cls(str(manifest["name"]), digest, trunk, sets, sample, arrays["trained"], manifest, encoder)

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """See `Predictor.predict`; `match` says how tiers are matched to measured ones."""
        features = self.encoder.features(prompt)
        inputs, unknown = (self._length_alone(prompt), 1.0) if features is None else self.trunk.see(features)
        mapping = self._mapping(model, tuple(tiers))
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

    def _mapping(self, model: str, tiers: tuple[TierLength, ...]) -> TierMapping:
        mapping = self._mappings.get((model, tiers))
        if mapping is None:
            if len(self._mappings) >= _MAPPINGS:
                self._mappings.clear()
            mapping = self._mappings[model, tiers] = map_tiers(*self.match(model, tiers), tiers)
        return mapping

    @cached_property
    def _mappings(self) -> dict[tuple[str, tuple[TierLength, ...]], TierMapping]:
        return {}

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

    def match(self, model: str, tiers: Sequence[TierLength]) -> tuple[Curves, list[int] | None]:
        """The curves for a model's tiers and, where tiers are known by name, their columns.

        First choice is the set of the model's name, then any unbound set that knows all tier names, then the
        reference set, in which lengths are interpolated.

        Raises: ArtifactError, if the head has no such set.
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
        """Where a model's estimates come from if it was never measured; None if it was."""
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
        correct, tokens = self._mapping(model, tuple(tiers)).outcomes(self.sample)
        budgets, prices = demand(correct, tokens)
        shown = (
            np.unique(np.linspace(0, len(budgets) - 1, points).astype(np.int64)) if len(budgets) else slice(0)
        )
        return PriceTable.of_points(budgets[shown], prices[shown])


def _averages(curves: Mapping[str, Singles], inputs: Singles) -> dict[str, Singles]:
    """What stands in for the curves on length alone in a head trained before there were any: its averages."""
    logits, logs = np.split(inputs @ curves["weights"] + curves["bias"], 2)
    return {"average": 1 / (1 + np.exp(-logits)), "by_length": np.stack([logs, np.zeros_like(logs)])}


def load_named(name: str | Path, source: Source | None = None, remembers: int = 1 << 17) -> Head:
    """Load the shipped head `general` or `tiny`, or the artefact in a directory; see `Head.load`."""
    shipped = ARTIFACTS / str(name)
    return Head.load(shipped if str(name) in {"general", "tiny"} else name, source, remembers)
