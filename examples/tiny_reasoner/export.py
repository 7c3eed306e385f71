"""Writes a model directory for transformers and vLLM."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from examples.tiny_reasoner.chat import CHAT_TEMPLATE, END, PAD
from examples.tiny_reasoner.model import TinyQwen3


def export(model: TinyQwen3, tokenizer: Tokenizer, out: Path) -> None:
    """Write weights, configuration, tokenizer and chat template."""
    out.mkdir(parents=True, exist_ok=True)
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    weights = {name: value.detach().cpu().float().contiguous() for name, value in model.state_dict().items()}
    fresh = out / "model.safetensors.new"
    save_file(weights, fresh, metadata={"format": "pt"})
    fresh.replace(out / "model.safetensors")
    tokenizer.save(str(out / "tokenizer.json"))
    config = model.shape.config() | {"eos_token_id": end, "pad_token_id": pad, "dtype": "float32"}
    _write(out / "config.json", config)
    _write(
        out / "generation_config.json",
        {"do_sample": True, "temperature": 0.7, "eos_token_id": end, "pad_token_id": pad},
    )
    _write(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "model_max_length": model.shape.max_position_embeddings,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
