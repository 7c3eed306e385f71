"""A sentence encoder in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from router_model.arrays import Singles
from router_model.encoders.base import EncoderError
from router_model.encoders.embedder import PROBE, REMEMBERED, Embedder

_LONGEST = 512  # tokens a BERT reads if its tokenizer sets no limit


class SentenceEncoder(Embedder):
    """A BERT in CTranslate2's format with its `tokenizer.json`. Takes milliseconds per prompt."""

    def __init__(self, folder: Path, pooling: str = "mean", remembers: int = REMEMBERED) -> None:
        """pooling: `mean` over all tokens, or `cls` for the vector of the first token.

        Raises: EncoderError.
        """
        if pooling not in {"mean", "cls"}:
            raise EncoderError(f"no pooling {pooling!r}: mean or cls")
        try:
            import ctranslate2  # noqa: PLC0415 - an optional extra
            import tokenizers  # noqa: PLC0415
        except ImportError as error:
            raise EncoderError(
                f"{error.name} missing; a sentence encoder needs: pip install '.[encoder]' in the checkout"
            ) from None
        digest = hashlib.sha256()
        for name in ("model.bin", "tokenizer.json"):
            try:
                digest.update((folder / name).read_bytes())
            except OSError as error:
                raise EncoderError(f"{folder / name}: {error.strerror or error}") from None
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._model = ctranslate2.Encoder(str(folder), intra_threads=1)
        except Exception as error:  # noqa: BLE001 - tokenizers raises plain exceptions
            raise EncoderError(f"{folder}: {error}") from None
        self._tokenizer.no_padding()
        if self._tokenizer.truncation is None:
            self._tokenizer.enable_truncation(_LONGEST)
        self._pooling = pooling
        identity = {"kind": "sentence", "pooling": pooling, "sha256": digest.hexdigest()}
        super().__init__(identity, self.embed([PROBE]).shape[1], remembers)

    def embed(self, texts: Sequence[str]) -> Singles:
        """See `Embedder.embed`."""
        plain = [text.encode("utf-8", "replace").decode() for text in texts]  # no lone surrogates
        ids = [encoding.ids or [0] for encoding in self._tokenizer.encode_batch(plain)]
        try:
            states = np.array(self._model.forward_batch(ids).last_hidden_state, np.float32)
        except RuntimeError as error:
            raise EncoderError(f"the sentence encoder failed: {error}") from None
        if self._pooling == "cls":
            return states[:, 0]
        length = np.array([len(sequence) for sequence in ids], np.float32)[:, None]
        within = np.arange(states.shape[1]) < length
        pooled: Singles = (states * within[:, :, None]).sum(axis=1) / length
        return pooled
