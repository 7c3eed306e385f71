"""A head on disk is checked when it is read and replaced as a whole when it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from router_model import artifact
from router_model.artifact import ArtifactError
from router_model.head import Head
from router_model.training import train
from router_model.training.train import Trained


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"feature_version": 0}, "features of version 0"),
        ({"format": 99}, "format 99"),
        ({"arrays": {"file": "../x.npz", "sha256": ""}}, "outside its directory"),
        ({"arrays": {"file": "gone.npz", "sha256": ""}}, "gone.npz is missing"),
        ({"arrays": None}, "not a manifest"),
    ],
)
def test_refuses_other_artefacts(saved: Path, tmp_path: Path, change: dict, says: str) -> None:
    """Another feature version, another format, and manifests that point elsewhere."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / artifact.MANIFEST).read_text())
    (tmp_path / artifact.MANIFEST).write_text(json.dumps(manifest | change))

    with pytest.raises(ArtifactError, match=says):
        Head.load(tmp_path)


def test_refuses_damage(saved: Path, tmp_path: Path) -> None:
    """A flipped byte and an empty folder."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (arrays,) = tmp_path.glob("*.npz")
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"?")

    with pytest.raises(ArtifactError, match="damaged"):
        Head.load(tmp_path)
    with pytest.raises(ArtifactError, match="no head here"):
        Head.load(tmp_path / "nothing")


def test_replacing_leaves_one_head(trained: Trained, tmp_path: Path) -> None:
    """A second write replaces the first and leaves no temporary or old files."""
    first = train.save(trained.head, tmp_path)
    second = train.save(replace(trained.head, sample=trained.head.sample[:10]), tmp_path)

    assert first.digest != second.digest
    assert len(list(tmp_path.iterdir())) == 2
    assert Head.load(tmp_path).digest == second.digest
