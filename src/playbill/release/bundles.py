"""Which bundle is meant, and whether its bytes are still those that were measured."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from playbill.bundle.manifest import MANIFEST, STATE, State, decode_draft, decode_manifest
from playbill.bundle.verify import files_of
from playbill.errors import BundleError
from playbill.release.settings import LATEST
from playbill.tables.files import sha256_file

T = TypeVar("T")


def find_bundle(bundles: Path, version: str) -> Path:
    """Return the folder of a version, or of the bundle that was exported last.

    Raises:
        BundleError: no such bundle; lists those that are there.
    """
    there = _exported(bundles)
    if version == LATEST:
        if not there:
            raise BundleError(f"no bundle in {bundles}; write one with `playbill export`")
        return bundles / max(there, key=lambda name: (there[name], name))
    if version not in there:
        raise BundleError(f"no bundle {version!r} in {bundles}; there are: {', '.join(sorted(there)) or 'none'}")
    return bundles / version


def content_hash(path: Path) -> str:
    """Return the sha256 over all that answers in a bundle; reports are left out, for they are written about it.

    Raises:
        BundleError: the folder holds what no bundle holds.
    """
    digest = hashlib.sha256()
    for name, file in files_of(path).items():
        if not name.startswith("report/"):
            digest.update(f"{name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def read_report(path: Path, name: str, kind: type[T]) -> T | None:
    """Return `report/<name>.json` of a bundle, None where there is none.

    Raises:
        BundleError: it is there and cannot be read.
    """
    file = path / "report" / f"{name}.json"
    if not file.is_file():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(
            f"bundle {path.name}: report/{name}.json: {error}; run the job that writes it again"
        ) from None


def encode(report: object) -> bytes:
    """Return a report as indented json."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def is_sealed(state: State) -> bool:
    return state in (State.SEALED, State.PUBLISHED)


def _exported(bundles: Path) -> dict[str, str]:
    """Return when each bundle was exported (ISO 8601, UTC) by version; folders that hold none are passed over."""
    found: dict[str, str] = {}
    for path in sorted(bundles.iterdir()) if bundles.is_dir() else []:
        if path.name.startswith("."):
            continue
        if (path / MANIFEST).is_file():
            found[path.name] = decode_manifest((path / MANIFEST).read_bytes()).created_at
        elif (path / STATE).is_file():
            found[path.name] = decode_draft((path / STATE).read_bytes()).manifest.created_at
    return found
