"""A BERT from plain arrays: written as CTranslate2 reads it, and computed again in numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ctranslate2.specs import Activation, EmbeddingsMerge, TransformerEncoderModelSpec, TransformerEncoderSpec

Weights = Mapping[str, np.ndarray]

WORDS = "[PAD] [UNK] [CLS] [SEP] add prove the numbers theorem sum of and please integrals over".split()
_EPSILON = 1e-12
_PROJECTIONS = "query", "key", "value"


def random_weights(seed: int, layers: int = 2, width: int = 32, inner: int = 64, places: int = 64) -> Weights:
    """Weights by the names that transformers gives them."""
    draw = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.position_embeddings.weight": (places, width),
        **_norm("embeddings.LayerNorm", width),
        **_linear("pooler.dense", width, width),
    }
    for at in range(layers):
        here = f"encoder.layer.{at}"
        for name in _PROJECTIONS:
            shapes |= _linear(f"{here}.attention.self.{name}", width, width)
        shapes |= _linear(f"{here}.attention.output.dense", width, width)
        shapes |= _norm(f"{here}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{here}.intermediate.dense", width, inner)
        shapes |= _linear(f"{here}.output.dense", inner, width) | _norm(f"{here}.output.LayerNorm", width)
    return {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def write(weights: Weights, folder: Path, heads: int, vocabulary: Sequence[str] = WORDS) -> Path:
    """The folder with `model.bin`, as CTranslate2's own converter makes it of a BertModel."""
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    spec = TransformerEncoderModelSpec(
        TransformerEncoderSpec(
            layers, heads, pre_norm=False, activation=Activation.GELU, layernorm_embedding=True,
            num_source_embeddings=2, embeddings_merge=EmbeddingsMerge.ADD,
        ),
        pooling_layer=True,
    )  # fmt: skip

    def fill(part: object, *names: str) -> None:
        part.weight = np.concatenate([weights[f"{name}.weight"] for name in names])
        part.bias = np.concatenate([weights[f"{name}.bias"] for name in names])

    def norm(part: object, name: str) -> None:
        part.gamma, part.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    encoder = spec.encoder
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = weights["embeddings.word_embeddings.weight"]
    encoder.embeddings[1].weight = weights["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = weights["embeddings.position_embeddings.weight"]
    norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
    fill(spec.pooler_dense, "pooler.dense")
    for at, layer in enumerate(encoder.layer):
        here = f"encoder.layer.{at}"
        fill(layer.self_attention.linear[0], *(f"{here}.attention.self.{n}" for n in _PROJECTIONS))
        fill(layer.self_attention.linear[1], f"{here}.attention.output.dense")
        norm(layer.self_attention.layer_norm, f"{here}.attention.output.LayerNorm")
        fill(layer.ffn.linear_0, f"{here}.intermediate.dense")
        fill(layer.ffn.linear_1, f"{here}.output.dense")
        norm(layer.ffn.layer_norm, f"{here}.output.LayerNorm")
    spec.config.unk_token = "[UNK]"
    spec.config.layer_norm_epsilon = _EPSILON
    spec.register_vocabulary(list(vocabulary))
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    return folder


def write_tokenizer(folder: Path, **more: object) -> None:
    """A `tokenizer.json` that knows WORDS, split at white space, in lower case, between [CLS] and [SEP]."""
    special = [
        {"id": at, "content": WORDS[at], "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False} for at in range(4)
    ]  # fmt: skip
    piece = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    named = {name: {"id": name, "ids": [WORDS.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing", "single": piece, "pair": piece, "special_tokens": named,
        },
        "decoder": None,
        "model": {
            "type": "WordLevel", "vocab": {word: at for at, word in enumerate(WORDS)}, "unk_token": "[UNK]",
        },
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | more))


def states(weights: Weights, ids: Sequence[int], heads: int) -> np.ndarray:
    """The last hidden states of one text, [tokens, width] (Devlin et al., 2019)."""

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["embeddings.word_embeddings.weight"][list(ids)]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    erf = np.vectorize(math.erf)
    at = 0
    while f"encoder.layer.{at}.output.dense.weight" in weights:
        here = f"encoder.layer.{at}"
        q, k, v = (
            linear(x, f"{here}.attention.self.{name}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
            for name in _PROJECTIONS
        )
        score = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        share = np.exp(score - score.max(axis=-1, keepdims=True))
        mixed = (share / share.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(mixed, f"{here}.attention.output.dense"), f"{here}.attention.output.LayerNorm")
        inner = linear(x, f"{here}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{here}.output.dense"), f"{here}.output.LayerNorm")
        at += 1
    return x
