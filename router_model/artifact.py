"""A head on disk: plain arrays in one `.npz` file and a JSON manifest, no pickle, replaced as a whole."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.files import replace_file

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST = 8 << 20  # bytes
_MODE = 0o644  # a head is no secret, and the gateway may run as another user

TRUNK = ("rarity", "mean", "scale", "latents", "counts", "shift", "hidden", "hidden_bias")
CURVES = ("weights", "bias", "low", "high", "spread", "offset")
ALONE = ("average", "by_length")
"""Curves on the length of a prompt alone. Heads trained before there were any lack them."""
UNSEEN = 16.0
"""The rarity of an n-gram that was never seen in training."""

Arrays = Mapping[str, NDArray[Any]]


class ArtifactError(ValueError):
    """The head is missing, damaged, of another format or of another feature version."""


def write_artifact(directory: Path, manifest: Mapping[str, Any], arrays: Arrays) -> str:
    """Write an artefact and return its digest. A concurrent reader gets the old artefact or the new one.

    The arrays' file is named by its content. The manifest names that file and is replaced last, atomically.

    Raises: ArtifactError, above 8 MiB.
    """
    directory.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            # a fixed time, so that the same head gives the same bytes
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            held = io.BytesIO()
            np.save(held, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(entry, held.getvalue())
    content = packed.getvalue()
    if len(content) > LARGEST:
        raise ArtifactError(f"{directory}: the head takes {len(content):,} bytes, more than {LARGEST:,}")
    digest = hashlib.sha256(content).hexdigest()
    name = f"head-{digest[:12]}.npz"
    whole = {"format": FORMAT, **manifest, "arrays": {"file": name, "sha256": digest}}
    replace_file(directory / name, content, _MODE)
    replace_file(directory / MANIFEST, (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode(), _MODE)
    for old in directory.glob("head-*.npz"):
        if old.name != name:
            old.unlink(missing_ok=True)
    return digest


class PackedHead(NamedTuple):
    """A head as it is on disk or in a store: its two files."""

    manifest: bytes
    arrays: bytes
    """The `.npz` file."""

    @property
    def version(self) -> str:
        """How decision records name it. Raises: ArtifactError, if the manifest is damaged."""
        manifest = _manifest_of(self.manifest, "the head")
        return f"{manifest.get('name', 'head')}-{manifest['arrays']['sha256'][:12]}"


def read_artifact(
    directory: Path, feature_version: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], str]:
    """Manifest, arrays and digest of an artefact, checked.

    Raises: ArtifactError.
    """
    return unpack_artifact(pack_artifact(directory), feature_version, str(directory))


def pack_artifact(directory: Path) -> PackedHead:
    """The files of an artefact, unchecked but for the manifest's form. Raises: ArtifactError."""
    for attempt in range(3):
        try:
            content = (directory / MANIFEST).read_bytes()
            file = str(_manifest_of(content, str(directory / MANIFEST))["arrays"]["file"])
            if "/" in file or file.startswith("."):
                raise ArtifactError(f"{directory}: the manifest names a file outside its directory")
            return PackedHead(content, (directory / file).read_bytes())
        except FileNotFoundError as error:
            # the artefact was replaced between the two reads, and the new manifest names another file
            if attempt == 2:
                raise ArtifactError(f"{directory}: no head here: {error.filename} is missing") from None
    raise AssertionError


def unpack_artifact(
    packed: PackedHead, feature_version: int, where: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], str]:
    """Manifest, arrays and digest, checked. where: names the artefact in errors.

    Raises: ArtifactError.
    """
    manifest = _manifest_of(packed.manifest, where)
    form, features, digest = manifest["format"], manifest["feature_version"], manifest["arrays"]["sha256"]
    if form != FORMAT:
        raise ArtifactError(f"{where}: format {form}, but this version reads {FORMAT}; train the head again")
    if features != feature_version:
        raise ArtifactError(
            f"{where}: trained on features of version {features}, but this version computes"
            f" {feature_version}; train the head again"
        )
    if hashlib.sha256(packed.arrays).hexdigest() != digest:
        file = manifest["arrays"]["file"]
        raise ArtifactError(f"{where}/{file}: damaged: its SHA-256 is not the manifest's")
    with np.load(io.BytesIO(packed.arrays), allow_pickle=False) as archive:
        return manifest, {name: archive[name] for name in archive.files}, digest


def _manifest_of(content: bytes, where: str) -> dict[str, Any]:
    """The manifest, with the fields that reading needs. Raises: ArtifactError."""
    try:
        manifest: dict[str, Any] = json.loads(content)
        named = manifest["arrays"]
        _ = manifest["format"], manifest["feature_version"], named["file"] + named["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{where}: not a manifest: {error!r}") from None
    return manifest
