"""Writes a LoRA adapter of the tiny reasoner that changes nothing, in the format of the library PEFT."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from examples.tiny_reasoner.serve import WEIGHTS

RANK = 8


def write_adapter(directory: Path) -> Path:
    """The adapter's second matrix is zero, so the model answers as without it."""
    config = json.loads((WEIGHTS / "config.json").read_text())
    hidden, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = np.ones((RANK, hidden), np.float32)
        tensors[f"{name}.lora_B.weight"] = np.zeros((heads, RANK), np.float32)
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    described = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (directory / "adapter_config.json").write_text(json.dumps(described))
    return directory
