"""Encoders: a real BERT, an embedding server, and heads that refuse any other encoder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli.main import cli
from router_model.artifact import ArtifactError
from router_model.encoders import embedder
from router_model.encoders.base import EncoderError, Source
from router_model.encoders.ngrams import HASHED, ngram_features
from router_model.encoders.open import opened
from router_model.encoders.remote import RemoteEncoder
from router_model.encoders.sentence import SentenceEncoder
from router_model.head import Head
from router_model.predictor import TierLength
from router_model.training.outcomes import OutcomeTable
from tests.fakes.embeddings import WIDTH, Embeddings, embeddings
from tests.router_model import made

pytest.importorskip("tokenizers")
pytest.importorskip("sklearn")

from tests.router_model import bert

HEADS = 4
ASKED = [TierLength("short", 0, 200), TierLength("long", 100, 200)]
TEXTS = [
    "Add the numbers please",
    "prove",
    "sum of the sum of the sum of the integrals",
    "",
    "unknown \ud800 漢",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with random weights, as CTranslate2 reads it."""
    found = bert.write(bert.random_weights(0), tmp_path_factory.mktemp("encoders") / "bert", HEADS)
    bert.write_tokenizer(found)
    return found


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    """Half the prompts easy, half hard."""
    return made.table(160)


@pytest.fixture
def server() -> Iterator[Embeddings]:
    """A server of embeddings."""
    with embeddings() as running:
        yield running


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentence_encoder(folder: Path, pooling: str) -> None:
    """CTranslate2 computes the same vectors in mixed batches as a BERT in NumPy."""
    encoder = SentenceEncoder(folder, pooling)
    found = encoder.encode_all(TEXTS)

    for at, text in enumerate(TEXTS):
        words = text.lower().split()
        known = [bert.WORDS.index(word) if word in bert.WORDS else 1 for word in words]
        states = bert.states(bert.random_weights(0), [2, *known, 3], HEADS)
        wanted = states[0] if pooling == "cls" else states.mean(axis=0)
        row = found.values[found.indptr[at] : found.indptr[at + 1]]
        assert row == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-4)
        assert found.dense[at] == pytest.approx(ngram_features(text).dense)


def test_long_prompts_are_cut(folder: Path, tmp_path: Path) -> None:
    """However long a prompt, no more tokens are read than the tokenizer allows."""
    bert.write(bert.random_weights(0), tmp_path, HEADS)
    limit = {"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    bert.write_tokenizer(tmp_path, truncation=limit)
    encoder = SentenceEncoder(tmp_path)

    assert encoder.embed(["sum " * 14])[0] == pytest.approx(encoder.embed(["sum " * 100_000])[0], abs=1e-5)
    with pytest.raises(EncoderError, match="failed"):
        SentenceEncoder(folder).embed(["sum " * 100])  # 102 tokens, where this BERT has 64 places


def test_features_wait_for_nothing(folder: Path) -> None:
    """A prompt has no features until it is embedded; the cache is bounded and drops the oldest."""
    encoder = SentenceEncoder(folder, remembers=2)
    assert encoder.features("prove") is None

    encoder.encode_all(["prove"])
    found = encoder.features("prove")
    assert found is not None
    assert abs(float(found.values @ found.values) - 1) < 1e-5
    encoder.encode_all(["add"])
    encoder.encode_all(["sum", "please"])
    assert encoder.features("prove") is None
    assert encoder.missing(["sum", "please", "add"]) == ["add"]


def test_head_on_a_sentence_encoder(folder: Path, table: OutcomeTable, tmp_path: Path) -> None:
    """A head trained by the command tells easy from hard, and abstains without an embedding."""
    data = made.write(table, tmp_path / "made.jsonl")
    out = tmp_path / "head"
    arguments = ["--out", str(out), "--encoder", str(folder)]
    assert CliRunner().invoke(cli, ["train", str(data), *arguments]).exit_code == 0

    head = Head.load(out, Source(str(folder)))
    assert json.loads((out / "manifest.json").read_text())["encoder"] == head.encoder.identity
    assert head.predict(made.EASY.format(31, 38), "made", ASKED).abstains
    head.see([made.EASY.format(31, 38), made.HARD.format(33, 40)])
    easy, hard = (head.predict(text.format(*n), "made", ASKED) for text, n in PROMPTS)
    assert not easy.abstains
    assert not hard.abstains
    assert easy.difficulty + 0.4 < hard.difficulty

    fresh = made.write(made.table(260, seed=1), tmp_path / "fresh.jsonl")
    command = ["evaluate", str(out), str(fresh), "--json", "--encoder", str(folder)]
    report = json.loads(CliRunner().invoke(cli, command).stdout)
    assert report["prompts"] == 100
    assert report["points"][1]["accuracy"] > report["points"][1]["mix"] + 0.1


PROMPTS = (made.EASY, (31, 38)), (made.HARD, (33, 40))


def test_unlike_the_training_data(server: Embeddings, table: OutcomeTable, tmp_path: Path) -> None:
    """The head abstains from a prompt whose embedding is unlike all training data."""
    head = trained(server, table, tmp_path)
    head.see(["Übersetze Goethes Ballade ins Spanische", made.HARD.format(50, 57)])

    assert head.predict("Übersetze Goethes Ballade ins Spanische", "made", ASKED).abstains
    assert not head.predict(made.HARD.format(50, 57), "made", ASKED).abstains


def trained(server: Embeddings, table: OutcomeTable, folder: Path) -> Head:
    """A head on the server's embeddings, written to folder/head."""
    from router_model.training import train

    encoder = opened(Source(server.url, model="words"))
    return train.save(train.train([table], "head", encoder=encoder), folder / "head")


def test_served_embeddings(server: Embeddings, table: OutcomeTable, tmp_path: Path) -> None:
    """Training requests each text once, in batches; the reloaded head predicts the same."""
    head = trained(server, table, tmp_path)
    assert len(server.texts) == len(set(server.texts)) == len(table) + 1
    assert all(len(one["input"]) <= 32 and one["model"] == "words" for one in server.asked)

    again = Head.load(tmp_path / "head", Source(f"{server.url}/v1/"))
    prompt = made.HARD.format(50, 56)
    head.see([prompt])
    again.see([prompt])
    assert again.predict(prompt, "made", ASKED) == head.predict(prompt, "made", ASKED)
    assert again.predict(prompt, "made", ASKED).difficulty > 0.7


def test_another_encoder_is_refused(
    folder: Path, server: Embeddings, table: OutcomeTable, tmp_path: Path
) -> None:
    """A head says what is missing or wrong: no encoder, another kind, another model, another server."""
    from router_model.training import train

    head = train.train([table], "sentence", encoder=opened(Source(str(folder))))
    train.save(head, tmp_path / "sentence")
    trained(server, table, tmp_path)
    other = bert.write(bert.random_weights(1), tmp_path / "other", HEADS)
    bert.write_tokenizer(other)
    for head, source, message in (
        ("sentence", None, "a sentence encoder; say where"),
        ("sentence", Source(server.url), "another kind"),
        ("sentence", Source(str(other)), "another encoder than"),
        ("sentence", Source(str(tmp_path / "nowhere")), "nowhere"),
        ("head", None, "'words'; say where"),
        ("head", Source(str(folder)), "another kind"),
    ):
        with pytest.raises(ArtifactError, match=message):
            Head.load(tmp_path / head, source)

    server.salt = "another model"
    with pytest.raises(EncoderError, match="embeds otherwise"):
        Head.load(tmp_path / "head", Source(server.url)).see(["x"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": 500, "body": b"out of memory"}, "status 500: out of memory"),
        ({"body": b"<html>"}, "not an answer with embeddings"),
        ({"body": b'{"data": [{"index": 1e999, "embedding": [1]}]}'}, "not an answer with embeddings"),
        ({"body": b"[" * 100_000}, "not an answer with embeddings"),
        ({"body": b'{"data": [{"index": 0, "embedding": [1]}]}'}, "embeddings of 48 numbers"),
        ({"body": b'{"data": []}'}, "0 embeddings for 1 texts"),
        ({"body": json.dumps({"data": [{"index": 0, "embedding": [0] * WIDTH}]}).encode()}, "finite numbers"),
        ({"key": "secret"}, "status 401"),
        ({"delay": 1.0}, "timed out"),
    ],
)
def test_faults_of_the_server(server: Embeddings, change: dict[str, object], message: str) -> None:
    """Whatever the server does wrong, the error says what and where."""
    encoder = opened(Source(server.url, model="words", timeout=0.3))
    for name, value in change.items():
        setattr(server, name, value)

    with pytest.raises(EncoderError, match=message):
        encoder.encode_all(["prove the theorem"])
    assert encoder.features("prove the theorem") is None


def test_no_server() -> None:
    """An unreachable server is an error with its address; so is a server without a model name."""
    with pytest.raises(EncoderError, match=r"127\.0\.0\.1:9/v1/embeddings"):
        opened(Source("http://127.0.0.1:9", model="m"))
    with pytest.raises(EncoderError, match="name the embedding model"):
        opened(Source("http://127.0.0.1:9"))


def test_key_and_command_line(server: Embeddings, table: OutcomeTable, tmp_path: Path) -> None:
    """Cross-validation on the command line with a server's embeddings, its key from the environment."""
    server.key = "secret"
    data = str(made.write(table, tmp_path / "made.jsonl"))
    command = [
        "evaluate",
        data,
        "--folds",
        "3",
        "--json",
        "--encoder",
        server.url,
        "--encoder-model",
        "words",
    ]
    refused = CliRunner().invoke(cli, command)
    found = CliRunner().invoke(cli, command, env={"THINKMETER_ENCODER_KEY": "secret"})

    assert refused.exit_code == 2
    assert "401" in refused.stderr
    point = json.loads(found.stdout)["points"][1]
    assert point["accuracy"] > point["mix"] + 0.1


def test_hashed_is_the_default() -> None:
    """Without a source, or with the source `hashed`, the built-in features are used."""
    assert opened(None) is opened(Source("hashed")) is HASHED
    assert opened(Source("/somewhere"), HASHED.identity) is HASHED


def test_what_a_directory_lacks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing files, damaged ones, a pooling that does not exist and a missing library are named."""
    with pytest.raises(EncoderError, match=r"model\.bin"):
        SentenceEncoder(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=str(tmp_path)):
        SentenceEncoder(tmp_path)
    with pytest.raises(EncoderError, match="mean or cls"):
        SentenceEncoder(folder, "max")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(EncoderError, match=r"tokenizers missing.*\.\[encoder\]"):
        SentenceEncoder(folder)


def test_served_halves(server: Embeddings) -> None:
    """With another HTTP client, `request` and `vectors` do the same; lone surrogates do no harm."""
    encoder = opened(Source(server.url, model="words"))
    assert isinstance(encoder, RemoteEncoder)
    texts = encoder.missing(["lone \ud800", "lone \ud800", ""])

    assert len(texts) == 2
    assert json.loads(encoder.request(texts))["input"] == ["lone ?", " "]
    assert replace(Source("x"), place=server.url).served
    assert embedder.PROBE not in texts
