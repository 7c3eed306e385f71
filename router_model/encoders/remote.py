"""Embeddings from a server with OpenAI's `/v1/embeddings`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from router_model.arrays import Singles
from router_model.encoders.base import EncoderError, Source
from router_model.encoders.embedder import PROBE, REMEMBERED, Embedder

_SHOWN, _ALIKE = 32, 0.99  # numbers of the probe's vector in a manifest, and the least cosine similarity


class RemoteEncoder(Embedder):
    """Embeddings of a server such as vLLM.

    `request` and `vectors` are the two halves of `embed`, for callers with an HTTP client of their own.
    """

    path = "/v1/embeddings"

    def __init__(
        self, source: Source, wanted: Mapping[str, Any] | None = None, remembers: int = REMEMBERED
    ) -> None:
        """wanted: the identity in a manifest, checked at the first response; None asks the server now."""
        self._source = source
        self._verified = wanted is None
        if wanted is None:
            if not source.model:
                raise EncoderError(f"{source.place}: name the embedding model that is served there")
            (vector,) = self.embed([PROBE])
            wanted = {"kind": "served", "model": source.model, "probe": _shown(vector), "width": len(vector)}
        self._model = str(wanted["model"])
        super().__init__(wanted, int(wanted["width"]), remembers)

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """See `Embedder.missing`; includes the probe until the server is verified."""
        texts = super().missing(prompts)
        return [PROBE, *texts] if texts and not self._verified else texts

    def keep(self, texts: Sequence[str], vectors: Singles) -> None:
        """See `Embedder.keep`."""
        super().keep(texts, vectors)
        if not self._verified and PROBE in texts:
            ours, theirs = self.identity["probe"], _shown(vectors[list(texts).index(PROBE)])
            alike = float(np.dot(ours, theirs) / (np.linalg.norm(ours) * np.linalg.norm(theirs) or 1.0))
            if alike < _ALIKE:
                self._known.clear()
                raise EncoderError(
                    f"{self._source.place}: the model {self._model!r} embeds otherwise than the one the head"
                    " was trained with; train the head again"
                )
            self._verified = True

    def request(self, texts: Sequence[str]) -> bytes:
        """The body of a request."""
        named = self._source.model or self._model
        cut = {"truncate_prompt_tokens": -1}  # vLLM truncates to what the model can read
        plain = [text.encode("utf-8", "replace").decode() or " " for text in texts]
        return json.dumps({"model": named, "input": plain, **cut}).encode()

    def vectors(self, body: bytes, count: int) -> Singles:
        """The vectors in a response.

        Raises: EncoderError.
        """
        try:
            data = sorted(json.loads(body)["data"], key=lambda entry: int(entry["index"]))
            vectors = np.array([entry["embedding"] for entry in data], np.float32)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            kind = type(error).__name__  # its text may repeat the prompt
            raise EncoderError(f"{self._source.place}: not an answer with embeddings ({kind})") from None
        if vectors.ndim != 2 or len(vectors) != count:
            raise EncoderError(f"{self._source.place}: {len(vectors)} embeddings for {count} texts")
        return vectors

    def embed(self, texts: Sequence[str]) -> Singles:
        """See `Embedder.embed`."""
        headers = {"Content-Type": "application/json"}
        if self._source.key:
            headers["Authorization"] = f"Bearer {self._source.key}"
        address = self._source.place.rstrip("/").removesuffix("/embeddings").removesuffix("/v1") + self.path
        request = urllib.request.Request(address, self.request(texts), headers)  # noqa: S310 - http(s) by `Source`
        try:
            with urllib.request.urlopen(request, timeout=self._source.timeout) as response:  # noqa: S310
                return self.vectors(response.read(), len(texts))
        except urllib.error.HTTPError as error:
            detail = error.read(500).decode(errors="replace")
            raise EncoderError(f"{address}: status {error.code}: {detail}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise error if isinstance(error, EncoderError) else EncoderError(f"{address}: {reason}") from None


def _shown(vector: Sequence[float] | Singles) -> list[float]:
    unit = np.asarray(vector, float) / (float(np.linalg.norm(vector)) or 1.0)
    return [round(float(number), 5) for number in unit[:_SHOWN]]
