"""What turns prompts into features: hashed n-grams, a sentence encoder, or a server's embeddings; one seam.

An embedding takes the place of the n-grams: a unit vector whose columns are all present. The plain counts of
`features` stay beside it, and what is learnt above is the same for all.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from router_model.encoders.ngrams import END, SIZE, START, Features, Matrix, encode, encode_all

Single = NDArray[np.float32]

PROBE = "How many minutes are there in a day and a half?"
"""Embedded when a served model is first met, and when it is met again: the vector must be the same."""

_BATCH = 32
_LONGEST = 512  # tokens a BERT reads, where its tokenizer sets no limit of its own
_SHOWN, _ALIKE = 32, 0.99  # leading numbers of the probe's vector that are kept, and how alike they must be
_TRAINING = 1 << 17  # vectors remembered; a gateway asks for fewer


class EncoderError(ValueError):
    """An encoder that cannot be used, is another than the head was trained with, or does not answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an encoder is found: `hashed`, a directory, or the address of an OpenAI-compatible server.

    model, key, timeout (seconds): of a server. pooling: `mean` or `cls`, of a directory.
    """

    place: str = "hashed"
    model: str | None = None
    pooling: str = "mean"
    key: str | None = None
    timeout: float = 60.0

    @property
    def served(self) -> bool:
        """Whether it is an address."""
        return self.place.startswith(("http://", "https://"))


class Encoder(Protocol):
    """Text to features. `identity` is what a head's manifest keeps: it must be met again exactly."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Kind, and what tells this encoder from others of its kind."""
        ...

    @property
    def width(self) -> int:
        """Columns that `Features.indices` may name."""
        ...

    def features(self, prompt: str) -> Features | None:
        """Of one prompt, at once; None where that would mean to wait."""
        ...

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """Of all prompts, however long it takes. Raises EncoderError."""
        ...


class Hashed:
    """The default: `features.encode`."""

    identity: Mapping[str, Any] = {"kind": "hashed"}
    width = SIZE

    def features(self, prompt: str) -> Features:
        """See `Encoder.features`."""
        return encode(prompt)

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """See `Encoder.encode_all`."""
        return encode_all(prompts)


HASHED = Hashed()


class Embedder(ABC):
    """Dense unit vectors, and a memory of them: whoever may wait fills it, and `features` only looks."""

    def __init__(self, identity: Mapping[str, Any], width: int, remembers: int) -> None:
        self.identity = {**identity, "width": width}
        self.width = width
        self._columns = np.arange(width, dtype=np.int32)
        self._remembers = remembers
        self._known: dict[bytes, Single] = {}

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Single:
        """Vectors of some texts, [N, width]. Raises EncoderError."""

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The texts to embed before `features` knows all of these prompts."""
        return [text for text in dict.fromkeys(map(_read, prompts)) if _key(text) not in self._known]

    def keep(self, texts: Sequence[str], vectors: Single) -> None:
        """Remember vectors [N, width], of whatever length. Raises EncoderError."""
        if vectors.shape != (len(texts), self.width):
            raise EncoderError(
                f"expected {len(texts)} embeddings of {self.width} numbers, got {vectors.shape}; the head was"
                " trained with another encoder"
            )
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(length) & (length > 0)).all():
            raise EncoderError("an embedding is not a vector of finite numbers")
        self._known.update(zip(map(_key, texts), (vectors / length).astype(np.float32), strict=True))
        while len(self._known) > max(self._remembers, len(texts)):
            del self._known[next(iter(self._known))]

    def features(self, prompt: str) -> Features | None:
        """See `Encoder.features`."""
        vector = self._known.get(_key(_read(prompt)))
        return None if vector is None else encode(prompt)._replace(indices=self._columns, values=vector)

    def encode_all(self, prompts: Sequence[str]) -> Matrix:
        """See `Encoder.encode_all`."""
        parts = [prompts[at : at + 2048] for at in range(0, len(prompts), 2048)] or [[]]
        rows = [self._rows(part) for part in parts]
        count = len(prompts)
        return Matrix(
            np.arange(count + 1, dtype=np.int64) * self.width,
            np.tile(self._columns, count),
            np.concatenate([values for values, _ in rows]).ravel(),
            np.concatenate([dense for _, dense in rows]),
        )

    def _rows(self, prompts: Sequence[str]) -> tuple[Single, Single]:
        texts = sorted(self.missing(prompts), key=len)  # those of a batch are padded to its longest
        keys = [_key(_read(prompt)) for prompt in prompts]
        found = {key: self._known[key] for key in keys if key in self._known}
        for at in range(0, len(texts), _BATCH):
            batch = texts[at : at + _BATCH]
            self.keep(batch, self.embed(batch))
            found |= {key: self._known[key] for key in map(_key, batch)}
        values = np.array([found[key] for key in keys], np.float32)
        return values.reshape(len(prompts), self.width), encode_all(prompts).dense


def _read(prompt: str) -> str:
    """What is embedded of a prompt: the same ends that `features.encode` reads."""
    return prompt if len(prompt) <= START + END else f"{prompt[:START]}\n{prompt[-END:]}"


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Sentence(Embedder):
    """A BERT in CTranslate2's format beside its `tokenizer.json`, in this process; takes milliseconds."""

    def __init__(self, folder: Path, pooling: str = "mean", remembers: int = _TRAINING) -> None:
        """pooling: `mean` over all tokens, or the vector of the first (`cls`). Raises EncoderError."""
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
        except Exception as error:  # noqa: BLE001 - what tokenizers raises
            raise EncoderError(f"{folder}: {error}") from None
        self._tokenizer.no_padding()
        if self._tokenizer.truncation is None:
            self._tokenizer.enable_truncation(_LONGEST)
        self._pooling = pooling
        identity = {"kind": "sentence", "pooling": pooling, "sha256": digest.hexdigest()}
        super().__init__(identity, self.embed([PROBE]).shape[1], remembers)

    def embed(self, texts: Sequence[str]) -> Single:
        """See `Embedder.embed`."""
        plain = [text.encode("utf-8", "replace").decode() for text in texts]  # no lone surrogates
        ids = [found.ids or [0] for found in self._tokenizer.encode_batch(plain)]
        try:
            states = np.array(self._model.forward_batch(ids).last_hidden_state, np.float32)
        except RuntimeError as error:
            raise EncoderError(f"the sentence encoder failed: {error}") from None
        if self._pooling == "cls":
            return states[:, 0]
        length = np.array([len(one) for one in ids], np.float32)[:, None]
        within = np.arange(states.shape[1]) < length
        pooled: Single = (states * within[:, :, None]).sum(axis=1) / length
        return pooled


class Served(Embedder):
    """Embeddings of a server that speaks OpenAI's `/v1/embeddings`, as vLLM does.

    `ask` and `answer` are its two halves for whoever brings an HTTP client of his own.
    """

    path = "/v1/embeddings"

    def __init__(
        self, source: Source, wanted: Mapping[str, Any] | None = None, remembers: int = _TRAINING
    ) -> None:
        """wanted: the identity in a manifest, checked at the first answer; None asks the server now."""
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
        """See `Embedder.missing`; of a server not met before also the probe."""
        texts = super().missing(prompts)
        return [PROBE, *texts] if texts and not self._verified else texts

    def keep(self, texts: Sequence[str], vectors: Single) -> None:
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

    def ask(self, texts: Sequence[str]) -> bytes:
        """The body of a request."""
        named = self._source.model or self._model
        cut = {"truncate_prompt_tokens": -1}  # vLLM: to what the model can read
        plain = [text.encode("utf-8", "replace").decode() or " " for text in texts]
        return json.dumps({"model": named, "input": plain, **cut}).encode()

    def answer(self, body: bytes, count: int) -> Single:
        """The vectors in an answer. Raises EncoderError."""
        try:
            data = sorted(json.loads(body)["data"], key=lambda one: int(one["index"]))
            vectors = np.array([one["embedding"] for one in data], np.float32)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise EncoderError(f"{self._source.place}: not an answer with embeddings: {error!r}") from None
        if vectors.ndim != 2 or len(vectors) != count:
            raise EncoderError(f"{self._source.place}: {len(vectors)} embeddings for {count} texts")
        return vectors

    def embed(self, texts: Sequence[str]) -> Single:
        """See `Embedder.embed`."""
        headers = {"Content-Type": "application/json"}
        if self._source.key:
            headers["Authorization"] = f"Bearer {self._source.key}"
        address = self._source.place.rstrip("/").removesuffix("/embeddings").removesuffix("/v1") + self.path
        request = urllib.request.Request(address, self.ask(texts), headers)  # noqa: S310 - http(s) by `Source`
        try:
            with urllib.request.urlopen(request, timeout=self._source.timeout) as answer:  # noqa: S310
                return self.answer(answer.read(), len(texts))
        except urllib.error.HTTPError as error:
            detail = error.read(500).decode(errors="replace")
            raise EncoderError(f"{address}: status {error.code}: {detail}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise error if isinstance(error, EncoderError) else EncoderError(f"{address}: {reason}") from None


def _shown(vector: Sequence[float] | Single) -> list[float]:
    unit = np.asarray(vector, float) / (float(np.linalg.norm(vector)) or 1.0)
    return [round(float(one), 5) for one in unit[:_SHOWN]]


def opened(
    source: Source | None, wanted: Mapping[str, Any] | None = None, remembers: int = _TRAINING
) -> Encoder:
    """The encoder at a place; for a head the one that its manifest wants. Raises EncoderError."""
    if wanted is None:
        return _opened(source or Source(), remembers)
    kind = str(wanted["kind"])
    if kind == "hashed":
        return HASHED
    if source is None or source.place == "hashed":
        named = f"the served model {wanted['model']!r}" if kind == "served" else "a sentence encoder"
        raise EncoderError(f"the head was trained with {named}; say where that is (`encoder`)")
    if source.served != (kind == "served"):
        raise EncoderError(
            f"{source.place}: the head was trained with a {kind} encoder; this is another kind"
        )
    if source.served:
        return Served(source, wanted, remembers)
    found = _opened(replace(source, pooling=str(wanted["pooling"])), remembers)
    if found.identity != wanted:
        raise EncoderError(
            f"{source.place}: another encoder than the head was trained with: SHA-256"
            f" {found.identity['sha256'][:12]} instead of {str(wanted['sha256'])[:12]}"
        )
    return found


def _opened(source: Source, remembers: int) -> Encoder:
    if source.place == "hashed":
        return HASHED
    if source.served:
        return Served(source, None, remembers)
    return Sentence(Path(source.place), source.pooling, remembers)
