"""A head on the embeddings of a real vLLM: trained through its API, served by the gateway."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples.tiny_reasoner.serve import WEIGHTS
from router_model.encoders.base import EncoderError, Source
from router_model.encoders.open import opened
from router_model.head import Head
from router_model.training import train
from tests.fakes.backend import Backend
from tests.router_model import made
from tests.serving import configuration, serving

from .processes import EMBEDDING, Replica, stopping, vllm_server

SUM = "What is 3 plus 4? "
TIERS = {"short": {"thinking": 0, "answer": 200}, "long": {"thinking": 200, "answer": 200}}


@pytest.fixture(scope="module")
def embedder(vllm_python: Path, workplace: Path) -> Iterator[Replica]:
    """vLLM with the tiny reasoner as an embedding model."""
    server = vllm_server("embedder", vllm_python, WEIGHTS, workplace, EMBEDDING)
    with stopping([server]):
        server.wait_until_ready("/health")
        yield server


def test_text_beyond_the_model(embedder: Replica) -> None:
    """vLLM cuts a prompt that is longer than the context. Equal texts give equal unit vectors."""
    encoder = opened(Source(embedder.url, model="tiny"))
    found = encoder.encode_all([SUM * 1000, SUM, ""])

    again = opened(Source(embedder.url, model="tiny")).encode_all([SUM])
    vectors = found.values.reshape(3, encoder.width)
    assert (vectors**2).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-4)
    assert vectors[1] == pytest.approx(again.values, abs=1e-4)


def test_unknown_model(embedder: Replica) -> None:
    """The error for a model that vLLM does not serve has vLLM's own message."""
    with pytest.raises(EncoderError, match="does not exist"):
        opened(Source(embedder.url, model="none"))


async def test_trained_and_served(embedder: Replica, tmp_path: Path) -> None:
    """A head that was trained over the API decides in the gateway by the embedding, and does not abstain."""
    table = replace(made.table(120), name="tiny")
    head = train.train([table], "head", encoder=opened(Source(embedder.url, model="tiny")))
    train.save(head, tmp_path / "head")
    assert Head.load(tmp_path / "head", Source(embedder.url)).encoder.identity["model"] == "tiny"
    encoder = {"source": embedder.url, "timeout": 60}
    async with Backend("tiny") as backend:
        settings = configuration(
            backend.url, model={"tiers": TIERS}, head=str(tmp_path / "head"), encoder=encoder, price=1.0
        )
        async with serving(settings) as running:
            found = [await running.chat(text.format(3, 10)) for text in (made.EASY, made.HARD)]

    assert [one.headers["x-thinkmeter-reason"] for one in found] == ["price", "price"]
    assert [one.headers["x-thinkmeter-tier"] for one in found] == ["short", "long"]


@pytest.mark.parametrize("form", ["float", "base64", "bytes", "bytes_only"])
async def test_embeddings_in_every_form(embedder: Replica, form: str) -> None:
    """Embeddings arrive as vLLM sent them, also as bytes, and leave no mark on the backend."""
    body = {"model": "tiny", "input": [SUM, "7"], "encoding_format": form}
    async with serving(configuration(embedder.url, model={"tiers": TIERS})) as running:
        answers = []
        for url in (embedder.url, running.url):
            async with running.http.post(f"{url}/v1/embeddings", json=body) as response:
                answers.append((response.status, response.content_type, await response.read()))
        (theirs, ours) = answers
        assert theirs[0] == 200, theirs
        assert ours[:2] == theirs[:2], ours
        if form.startswith("bytes"):
            assert ours[2] == theirs[2]
            assert len(ours[2]) > 0
        else:
            assert [_["embedding"] for _ in json.loads(ours[2])["data"]] == [
                _["embedding"] for _ in json.loads(theirs[2])["data"]
            ]
