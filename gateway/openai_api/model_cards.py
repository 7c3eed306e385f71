"""Reads the model list of a backend: which models it has, and their context lengths. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.openai_api.counts import count_of


class _ModelCard(Struct):
    id: Any = None
    root: Any = None
    parent: Any = None
    max_model_len: Any = None

    @property
    def context(self) -> int | None:
        """The context length in tokens; None if the card does not state one that can be read."""
        return count_of(self.max_model_len) or None


class _ModelList(Struct):
    data: list[_ModelCard] = []


class _Listed(Struct):
    id: str


class _ListedModels(Struct):
    data: list[_Listed]


def listed_models(body: bytes) -> list[str] | None:
    """The names of the models; None if the body is no list of models, such as a page."""
    try:
        models = msgspec.json.decode(body, type=_ListedModels).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return [model.id for model in models]


def lists(names: list[str], name: str) -> bool:
    """Whether a model is one of the names. Ollama lists `NAME:latest` and serves it as `NAME` too."""
    return name in names or f"{name}:latest" in names


def read_context(body: bytes, served_name: str) -> int | None:
    """The context length of a model in a response of /v1/models; None if nothing states it.

    An adapter runs within the context of its base model. Its card may state none and name a `parent`, which
    is the name under which the base model is served, or the one that it was loaded by: the `root` of its
    card. If no card has that name, the smallest stated length holds, as a vLLM server has one base model.
    """
    try:
        cards = msgspec.json.decode(body, type=_ModelList).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    card = next((card for card in cards if card.id == served_name), None)
    for _ in cards:  # an adapter of an adapter; no more steps than cards, as they may form a circle
        if card is None or card.context is not None or card.parent is None:
            return card.context if card else None
        card = _named(cards, card.parent) or _smallest(cards)
    return None


def _named(cards: list[_ModelCard], name: Any) -> _ModelCard | None:
    by_id = (card for card in cards if card.id == name)
    by_root = (card for card in cards if card.root == name and card.context is not None)
    return next(by_id, None) or next(by_root, None)


def _smallest(cards: list[_ModelCard]) -> _ModelCard | None:
    stating = [card for card in cards if card.context is not None]
    return min(stating, key=lambda card: card.context or 0, default=None)
