"""Opens an encoder and checks it against the one that a head was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from router_model.encoders.base import Encoder, EncoderError, Source
from router_model.encoders.embedder import REMEMBERED
from router_model.encoders.ngrams import HASHED
from router_model.encoders.remote import RemoteEncoder
from router_model.encoders.sentence import SentenceEncoder


def opened(
    source: Source | None, wanted: Mapping[str, Any] | None = None, remembers: int = REMEMBERED
) -> Encoder:
    """The encoder at a place. `wanted`: the identity in a head's manifest, which it must match.

    Raises: EncoderError.
    """
    if wanted is None:
        return _opened(source or Source(), remembers)
    kind = str(wanted["kind"])
    if kind == "hashed":
        return HASHED
    if source is None or source.place == "hashed":
        named = f"the served model {wanted['model']!r}" if kind == "served" else "a sentence encoder"
        raise EncoderError(f"the head was trained with {named}; say where it is (`encoder`)")
    if source.served != (kind == "served"):
        raise EncoderError(
            f"{source.place}: the head was trained with a {kind} encoder; this is another kind"
        )
    if source.served:
        return RemoteEncoder(source, wanted, remembers)
    encoder = _opened(replace(source, pooling=str(wanted["pooling"])), remembers)
    if encoder.identity != wanted:
        raise EncoderError(
            f"{source.place}: another encoder than the head was trained with: SHA-256"
            f" {encoder.identity['sha256'][:12]} instead of {str(wanted['sha256'])[:12]}"
        )
    return encoder


def _opened(source: Source, remembers: int) -> Encoder:
    if source.place == "hashed":
        return HASHED
    if source.served:
        return RemoteEncoder(source, None, remembers)
    return SentenceEncoder(Path(source.place), source.pooling, remembers)
