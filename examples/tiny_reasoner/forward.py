"""The model in numpy: weights from a Hugging Face directory, a slot-wise cache, prefill and decode."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def read_safetensors(path: Path) -> dict[str, Floats]:
    """Every tensor of a safetensors file as float32."""
    raw = path.read_bytes()
    header_size = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + header_size])
    header.pop("__metadata__", None)
    body = memoryview(raw)[8 + header_size :]
    return {name: _tensor(entry, body) for name, entry in header.items()}


def _tensor(entry: dict[str, Any], body: memoryview) -> Floats:
    first, last = entry["data_offsets"]
    part = body[first:last]
    if entry["dtype"] == "BF16":
        wide = np.frombuffer(part, np.uint16).astype(np.uint32) << 16
        flat = wide.view(np.float32)
    else:
        flat = np.frombuffer(part, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
    return flat.reshape(entry["shape"])


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, its projections fused and transposed for `x @ weight`."""

    norm_in: Floats
    qkv: Floats
    q_norm: Floats
    k_norm: Floats
    out: Floats
    norm_mlp: Floats
    gate_up: Floats
    down: Floats


def _layer(weights: dict[str, Floats], index: int) -> Layer:
    def get(name: str) -> Floats:
        return weights[f"model.layers.{index}.{name}.weight"]

    def joined(*names: str) -> Floats:
        return np.ascontiguousarray(np.concatenate([get(name) for name in names]).T)

    return Layer(
        norm_in=get("input_layernorm"),
        qkv=joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        q_norm=get("self_attn.q_norm"),
        k_norm=get("self_attn.k_norm"),
        out=joined("self_attn.o_proj"),
        norm_mlp=get("post_attention_layernorm"),
        gate_up=joined("mlp.gate_proj", "mlp.up_proj"),
        down=joined("mlp.down_proj"),
    )


def _softmax(scores: Floats) -> Floats:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


class Qwen3:
    """The network, with room for `slots` sequences whose keys and values it keeps."""

    def __init__(self, directory: Path, slots: int) -> None:
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
        weights = read_safetensors(directory / "model.safetensors")
        self.heads: int = self.config["num_attention_heads"]
        self.size: int = self.config["head_dim"]
        self.longest: int = self.config["max_position_embeddings"]
        self.eps: float = self.config["rms_norm_eps"]
        if self.config["num_key_value_heads"] != self.heads:
            raise ValueError(
                "this engine has no grouped attention: num_key_value_heads must equal num_attention_heads"
            )
        self.embedding = weights["model.embed_tokens.weight"]
        self.unembedding = np.ascontiguousarray(self.embedding.T)
        self.norm = weights["model.norm.weight"]
        self.layers = [_layer(weights, index) for index in range(self.config["num_hidden_layers"])]
        self.cos, self.sin = self._angles()
        shape = (len(self.layers), slots, self.heads, self.longest, self.size)
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def _angles(self) -> tuple[Floats, Floats]:
        theta = self.config["rope_parameters"]["rope_theta"]
        inverse = theta ** (-np.arange(0, self.size, 2) / self.size)
        angles = np.arange(self.longest)[:, None] * inverse[None, :]
        angles = np.concatenate((angles, angles), axis=1)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _normed(self, x: Floats, weight: Floats) -> Floats:
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return np.asarray(x / scale * weight, np.float32)

    def _projected(self, layer: Layer, x: Floats, at: Ids) -> tuple[Floats, Floats, Floats]:
        """Queries, keys and values, shape (rows, heads, size), rotated to their positions."""
        mixed = (self._normed(x, layer.norm_in) @ layer.qkv).reshape(len(x), 3, self.heads, self.size)
        cos, sin = self.cos[at][:, None, :], self.sin[at][:, None, :]
        q = self._rotated(self._normed(mixed[:, 0], layer.q_norm), cos, sin)
        k = self._rotated(self._normed(mixed[:, 1], layer.k_norm), cos, sin)
        return q * np.float32(self.size**-0.5), k, mixed[:, 2]

    @staticmethod
    def _rotated(x: Floats, cos: Floats, sin: Floats) -> Floats:
        half = x.shape[-1] // 2
        return x * cos + np.concatenate((-x[..., half:], x[..., :half]), axis=-1) * sin

    def _mlp(self, layer: Layer, x: Floats) -> Floats:
        gate, up = np.split(self._normed(x, layer.norm_mlp) @ layer.gate_up, 2, axis=-1)
        return np.asarray((gate / (1 + np.exp(-gate)) * up) @ layer.down, np.float32)

    def _logits(self, x: Floats) -> Floats:
        return np.asarray(self._normed(x, self.norm) @ self.unembedding, np.float32)

    def prefill(self, slot: int, ids: Ids) -> Floats:
        """Read a whole prompt into a slot; the logits after its last token."""
        count = len(ids)
        at = np.arange(count)
        mask = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        x: Floats = self.embedding[ids]
        for index, layer in enumerate(self.layers):
            q, k, v = (part.transpose(1, 0, 2) for part in self._projected(layer, x, at))
            self.keys[index, slot, :, :count] = k
            self.values[index, slot, :, :count] = v
            mixed: Floats = _softmax(q @ k.transpose(0, 2, 1) + mask) @ v
            x = x + mixed.transpose(1, 0, 2).reshape(count, -1) @ layer.out
            x = x + self._mlp(layer, x)
        return self._logits(x[-1])

    def decode(self, ids: Ids, at: Ids) -> Floats:
        """One token for each of the first `len(ids)` slots, at the given positions; their next logits."""
        rows = np.arange(len(ids))
        reach = int(at.max()) + 1
        mask = np.where(np.arange(reach)[None, :] > at[:, None], -np.inf, 0.0).astype(np.float32)[:, None, :]
        x: Floats = self.embedding[ids]
        for index, layer in enumerate(self.layers):
            q, k, v = self._projected(layer, x, at)
            self.keys[index, rows, :, at] = k
            self.values[index, rows, :, at] = v
            keys = self.keys[index, : len(ids), :, :reach]
            values = self.values[index, : len(ids), :, :reach]
            weights = _softmax((keys @ q[..., None])[..., 0] + mask)
            mixed = (weights[:, :, None, :] @ values)[:, :, 0]
            x = x + mixed.reshape(len(ids), -1) @ layer.out
            x = x + self._mlp(layer, x)
        return self._logits(x)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy what a slot remembers to another slot."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
