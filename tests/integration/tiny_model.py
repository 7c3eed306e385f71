"""Writes a Qwen3-architecture model of about a million parameters that behaves like a reasoning model.

    .venv-vllm/bin/python tests/integration/tiny_model.py DIRECTORY

The layers are random (seeded). The embedding and the output layer are shaped so that the next token's *kind*
depends only on the last token's kind: after `assistant\\n` comes <think>, then upper-case letters, after
</think> a blank line, then lower-case letters. A test can thus see on every single character whether it
was thought or answered. Which letter comes is up to the random layers, so it depends on the prompt. Greedy
decoding never ends by itself; sampling ends a thought or an answer about once in 200 tokens.
"""

import argparse
import string
from enum import IntEnum
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SEED = 20240
HIDDEN = 256
CONTEXT = 16384
NEWLINE, BLANK_LINE = "Ċ", "ĊĊ"  # how a byte-level vocabulary spells "\n" and "\n\n"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = ("<tool_call>", "</tool_call>", "<think>", "</think>")

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{% endif %}
    {{- 'Tools:' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set text = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' and '</think>' in text %}
        {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + text + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


class Kind(IntEnum):
    """What a token is. The number is the dimension of the hidden state that carries it."""

    ANSWER = 0
    THOUGHT = 1
    START = 2
    OPEN = 3
    CLOSE = 4
    GAP = 5


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, plus "\\n\\n" as Qwen has it, so that tokens can be counted by eye."""
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), BLANK_LINE]
    bpe = models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[(NEWLINE, NEWLINE)])
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def kind_of(token: str) -> Kind:
    if token in string.ascii_uppercase:
        return Kind.THOUGHT
    return {NEWLINE: Kind.START, "<think>": Kind.OPEN, "</think>": Kind.CLOSE, BLANK_LINE: Kind.GAP}.get(
        token, Kind.ANSWER
    )


def successors(kind: Kind) -> tuple[str, str]:
    """Tokens that may follow a kind: those equally likely, and the one that ends the phase (or none)."""
    upper, lower = string.ascii_uppercase, string.ascii_lowercase
    return {
        Kind.ANSWER: (lower, "<|im_end|>"),
        Kind.GAP: (lower, ""),
        Kind.OPEN: (upper, ""),
        Kind.THOUGHT: (upper, "</think>"),
        Kind.START: ("", "<think>"),
        Kind.CLOSE: ("", BLANK_LINE),
    }[kind]


@torch.no_grad()
def shape_outer_layers(model: Qwen3ForCausalLM, vocabulary: dict[str, int]) -> None:
    """Reserves one hidden dimension per kind and lets it alone decide which tokens are possible."""
    kinds = len(Kind)
    for layer in model.model.layers:
        layer.self_attn.q_norm.weight.mul_(3.0)  # sharper attention: the prompt shows in the answer
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            projection.weight.normal_(std=0.08)
            projection.weight[:kinds] = 0.0
    embedding, output = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.normal_(std=0.5)
    output.normal_(std=0.12)
    embedding[:, :kinds] = 0.0
    output[:, :kinds] = 0.0
    for token, i in vocabulary.items():
        embedding[i, kind_of(token)] = 8.0
        if token not in string.ascii_letters:
            output[i] = 0.0
    for kind in Kind:
        likely, last = successors(kind)
        for token in (*likely, *([last] if last else [])):
            output[vocabulary[token], kind] = 8.0


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config).eval()
    shape_outer_layers(model, tokenizer.get_vocab())
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def write_model(directory: Path) -> None:
    tokenizer = build_tokenizer()
    build_model(tokenizer).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a tiny reasoning model for tests.")
    parser.add_argument("directory", type=Path)
    write_model(parser.parse_args().directory)


if __name__ == "__main__":
    main()
