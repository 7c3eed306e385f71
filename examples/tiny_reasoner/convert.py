"""Converts the weights of a Hugging Face directory for CTranslate2, whose own converter needs torch."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import Activation, TransformerDecoderModelSpec
from numpy.typing import NDArray
from safetensors.numpy import load_file

from examples.tiny_reasoner.chat import END, PAD


def convert(directory: Path, vocabulary: list[str]) -> dict[str, bytes]:
    """The files of the CTranslate2 model, by name, as `ctranslate2.Generator` takes them.

    Rows of the embedding beyond the vocabulary are padding and left out, so that they are never sampled.
    Names on the left are CTranslate2's, names on the right are those of Qwen3 in transformers.
    """
    config: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
    weights = load_file(directory / "model.safetensors")

    def get(name: str) -> NDArray[np.float32]:
        return weights[f"model.{name}.weight"].astype(np.float32)

    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    spec = TransformerDecoderModelSpec.from_config(
        config["num_hidden_layers"],
        heads,
        activation=Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=config["head_dim"],
        rotary_interleave=False,
        rotary_base=config["rope_parameters"]["rope_theta"],
        num_heads_kv=None if shared == heads else shared,
        head_dim=config["head_dim"],
        qk_norm=True,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = get("embed_tokens")[: len(vocabulary)]
    decoder.layer_norm.gamma = get("norm")
    for index, layer in enumerate(decoder.layer):
        at, attention, mlp = f"layers.{index}", layer.self_attention, layer.ffn
        attention.layer_norm.gamma = get(f"{at}.input_layernorm")
        attention.q_norm.gamma = get(f"{at}.self_attn.q_norm")
        attention.k_norm.gamma = get(f"{at}.self_attn.k_norm")
        attention.linear[0].weight = np.concatenate([get(f"{at}.self_attn.{name}_proj") for name in "qkv"])
        attention.linear[1].weight = get(f"{at}.self_attn.o_proj")
        mlp.layer_norm.gamma = get(f"{at}.post_attention_layernorm")
        mlp.linear_0.weight = get(f"{at}.mlp.gate_proj")
        mlp.linear_0_noact.weight = get(f"{at}.mlp.up_proj")
        mlp.linear_1.weight = get(f"{at}.mlp.down_proj")
    spec.config.layer_norm_epsilon = config["rms_norm_eps"]
    spec.config.bos_token = spec.config.unk_token = PAD
    spec.config.eos_token = END
    spec.register_vocabulary(vocabulary)
    spec.validate()
    spec.optimize()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
