"""Which bundle is meant, and whether its bytes are still those that were measured."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from playbill.bundle.manifest import MANIFEST, STATE, State, decode_draft, decode_manifest
from playbill.bundle.verify import files_of
from playbill.bundle.write import reports_of
from playbill.errors import BundleError
from playbill.release.settings import LATEST
from playbill.tables.files import sha256_file

T = TypeVar("T")

# of report/: what `playbill evaluate` measures, and what is written about a verdict when there is one
CHECKS = ("calibration", "objectives", "variety", "disparity", "latency", "value", "scores")
MEASURED = ("evaluation", *CHECKS)
WRITTEN_LATER = ("gate", "forced")


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


def altered_reports(path: Path) -> dict[str, str]:
    """Return what is amiss with each report that is not as the job left it that wrote it, in words."""
    known = reports_of(path)
    there = {file.stem: file for file in (path / "report").glob("*.json") if file.stem not in WRITTEN_LATER}
    amiss = {name: "is gone" for name in known if name not in there and name not in WRITTEN_LATER}
    for name, file in there.items():
        if name not in known:
            amiss[name] = "was not written by a job of this Playbill"
        elif sha256_file(file) != known[name]:
            amiss[name] = "is not as the job left it that wrote it"
    return dict(sorted(amiss.items()))


def check_reports(path: Path) -> None:
    """Refuse to read figures that no job measured.

    Raises:
        BundleError: a report was altered, taken away or added by hand; says which, and what to run again.
    """
    amiss = altered_reports(path)
    if not amiss:
        return
    again = "evaluate" if set(amiss) <= set(MEASURED) else "export force=true` and `playbill evaluate"
    said = "; ".join(f"report/{name}.json {what}" for name, what in amiss.items())
    raise BundleError(
        f"bundle {path.name}: {said}: a gate reads what was measured alone; run `playbill {again} "
        f"bundle={path.name}` again"
    )


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
