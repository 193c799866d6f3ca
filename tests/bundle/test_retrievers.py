"""Files of retrievers that the manifest names: looked for and counted on opening; older manifests do without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.bundle.manifest import MANIFEST, Manifest, State, decode_manifest, encode_manifest
from playbill.bundle.open import open_bundle
from playbill.bundle.verify import entries_of
from playbill.bundle.write import seal, set_state
from playbill.errors import BundleError


@pytest.fixture
def sealed(make_bundle: Callable[..., Path]) -> Path:
    path = make_bundle()
    set_state(path, State.EVALUATED)
    set_state(path, State.GATED)
    seal(path)
    return path


def _seal(path: Path, **changes: object) -> Manifest:
    manifest = msgspec.structs.replace(decode_manifest((path / MANIFEST).read_bytes()), **changes)
    manifest = msgspec.structs.replace(manifest, files=entries_of(path))
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    return manifest


def test_a_bundle_of_the_first_format_opens_as_it_was(sealed: Path) -> None:
    data = encode_manifest(_seal(sealed, format_version=1, retrievers=msgspec.UNSET))
    assert b"retrievers" not in data  # byte for byte what an earlier Playbill sealed
    bundle = open_bundle(sealed)
    assert bundle.manifest.format_version == 1
    assert bundle.retriever_file("item_knn") == "neighbours.npz" and bundle.retriever_file("ease") == ""
    (sealed / MANIFEST).write_bytes(data.replace(b'"format_version": 1', b'"format_version": 3'))
    with pytest.raises(BundleError, match="format 3, this Playbill reads format 2: it is newer; upgrade Playbill"):
        open_bundle(sealed)


def test_what_the_manifest_names_is_there_and_of_this_catalogue(sealed: Path) -> None:
    np.savez(sealed / "ease.npz", indptr=np.zeros(7, np.int64))
    np.savez(sealed / "ials.npz", item_factors=np.zeros((6, 2), np.float32))
    named = {"item_knn": "neighbours.npz", "ease": "ease.npz", "ials": "ials.npz", "popularity": "popularity.npy"}
    _seal(sealed, retrievers=named)
    bundle = open_bundle(sealed)
    assert bundle.manifest.retrievers == named
    assert bundle.retriever_file("ials") == "ials.npz" and bundle.retriever_file("transitions") == ""
    for wrong in ({"indptr": np.zeros(9, np.int64)}, {"other": np.zeros(7)}):
        np.savez(sealed / "ease.npz", **wrong)  # type: ignore[arg-type]  # numpy's stub takes `**arrays` for the flag
        _seal(sealed, retrievers=named)
        with pytest.raises(BundleError, match=r"ease.npz: \d items, the catalogue has 5: of another export"):
            open_bundle(sealed)
    (sealed / "ease.npz").write_bytes(b"no archive")
    _seal(sealed, retrievers=named)
    with pytest.raises(BundleError, match=r"ease.npz: cannot be read"):
        open_bundle(sealed)
    (sealed / "ease.npz").unlink()
    _seal(sealed, retrievers=named)
    with pytest.raises(BundleError, match=r"ease.npz: missing, though the bundle says that 'ease' stands on it"):
        open_bundle(sealed)


def test_a_named_file_outside_the_folder_is_refused(sealed: Path) -> None:
    _seal(sealed, retrievers={"ease": "../ease.npz"})
    with pytest.raises(BundleError, match="not a plain relative path"):
        open_bundle(sealed)
