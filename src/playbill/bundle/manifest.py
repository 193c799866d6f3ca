"""The manifest: what a bundle is and what stands in it, byte for byte.

A bundle goes staged -> evaluated -> gated -> sealed -> published. Until it is sealed, `state.json` says where it
stands; sealing writes `manifest.json` last, so a folder with a manifest is complete. Published is whichever sealed
bundle the file `current` beside the folders names.

The checksums find damage and mix-ups. They are no signature: whoever can write the folder can write a new manifest.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from pathlib import PurePosixPath

import msgspec

from playbill.errors import BundleError

FORMAT_VERSION = 2  # 2 names the retrievers' files; bundles of format 1 are read as they are
_READ = (1, 2)

MANIFEST = "manifest.json"
STATE = "state.json"
CURRENT = "current"

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

# What may stand in a bundle. None of these runs code when read the way this room reads them; `.data` is weights that an
# ONNX graph keeps beside itself, and the last line is for reports.
SUFFIXES = {".json", ".parquet", ".npy", ".npz", ".onnx", ".data", ".faiss"}
REPORT_SUFFIXES = {".json", ".html", ".png", ".svg", ".csv", ".md"}


class State(StrEnum):
    """Where a bundle stands on its way out."""

    STAGED = "staged"  # export wrote it
    EVALUATED = "evaluated"  # measured on held-out time
    GATED = "gated"  # the release rules hold
    SEALED = "sealed"  # manifest written; nothing in it changes any more
    PUBLISHED = "published"  # the current one


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output of a graph: `float32`, `int64`, ..., and its shape, where a string is a size that varies."""

    dtype: str
    shape: list[int | str]


class ModelSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph takes and gives, in the graph's order."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is.

    Attributes:
        format_version: of this layout; a reader refuses a newer one.
        version: the bundle's name.
        created_at: ISO 8601, UTC.
        code_version: of the Playbill that exported it.
        dataset_fingerprint: of the tables it was made from.
        spec_hash: of features.json; 64 hex digits.
        rungs: what it carries: popularity, item_knn, towers, ranker, ... (rungs.json says why not the others).
        models: signature by model name; the graph is `<name>.onnx`.
        retrievers: file by retriever, of those that stand on a file alone: counts, tables of neighbours, factors. A
            bundle of format 1 does not name them.
        filled: columns at the end of the item vectors that only fill them up to unit length: every query has 0 there,
            and whoever compares items with items leaves them out.
        origin: where the parts came from: run names, settings, free text.
        files: every other file of the bundle by its relative path.
        seal: sha256 over the manifest itself, written with an empty seal.
    """

    format_version: int = FORMAT_VERSION
    version: str
    created_at: str
    code_version: str
    dataset_fingerprint: str
    spec_hash: str
    rungs: list[str]
    models: dict[str, ModelSignature] = {}
    retrievers: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    filled: int = 0
    origin: dict[str, str] = {}
    files: dict[str, FileEntry] = {}
    seal: str = ""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """`state.json`: the state of a bundle that is not sealed, and its manifest as far as it is known.

    Attributes:
        reports: sha256 of each report/<name>.json by name, as the job that wrote it left it.
    """

    state: State
    manifest: Manifest
    reports: dict[str, str] = {}


class _Format(msgspec.Struct):
    format_version: int


def check_version(version: str) -> str:
    """Return `version` if it can be a folder name and nothing else.

    Raises:
        BundleError: empty, too long, a path, hidden, or a name with a meaning of its own.
    """
    if not _VERSION.fullmatch(version) or version == CURRENT:
        raise BundleError(
            f"bad bundle version {version!r}: expected 1 to 100 letters, digits, '.', '_' or '-', starting with a "
            f"letter or digit, and not {CURRENT!r}"
        )
    return version


def check_name(name: str) -> str:
    """Return a file's path inside a bundle if it stays inside and is of a kind that may be there.

    Raises:
        BundleError: absolute, with `..`, hidden, or of a kind that a bundle never holds.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or str(path) != name or any(p.startswith(".") for p in path.parts):
        raise BundleError(f"{name!r} is not a plain relative path; a bundle holds no hidden files and nothing outside")
    kinds = REPORT_SUFFIXES if path.parts[0] == "report" and len(path.parts) > 1 else SUFFIXES
    if path.suffix not in kinds:
        raise BundleError(f"{name}: a bundle holds {', '.join(sorted(kinds))} there, nothing else; remove it")
    return name


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json, seal included."""
    empty = _json(msgspec.structs.replace(manifest, seal=""))
    return _json(msgspec.structs.replace(manifest, seal=hashlib.sha256(empty).hexdigest()))


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`.

    Raises:
        BundleError: not a manifest, of another format version, or a byte differs from what was sealed.
    """
    try:
        found = msgspec.json.decode(data, type=_Format).format_version
        if found not in _READ:
            age = "newer; upgrade Playbill" if found > FORMAT_VERSION else "older; export again"
            raise BundleError(f"{MANIFEST}: format {found}, this Playbill reads format {FORMAT_VERSION}: it is {age}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{MANIFEST}: not a manifest ({error}); the bundle is damaged: fetch or export it again"
        ) from None
    if encode_manifest(manifest) != data:
        raise BundleError(
            f"{MANIFEST}: altered after sealing (its own checksum differs); fetch or export the bundle again"
        )
    check_version(manifest.version)
    for name in manifest.files:
        check_name(name)
    if manifest.retrievers:
        for name in manifest.retrievers.values():
            check_name(name)
    return manifest


def encode_draft(draft: Draft) -> bytes:
    """Return the bytes of state.json."""
    return msgspec.json.format(msgspec.json.encode(draft), indent=1) + b"\n"


def decode_draft(data: bytes) -> Draft:
    """Return the draft in `data`.

    Raises:
        BundleError: not a draft.
    """
    try:
        return msgspec.json.decode(data, type=Draft)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(f"{STATE}: not a bundle's state ({error}); export again") from None


def _json(manifest: Manifest) -> bytes:
    # keys stay in the order they were made: the inputs of a graph have one
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
