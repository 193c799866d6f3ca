"""Moving a bundle along: staged -> evaluated -> gated -> sealed -> published. Each step is refused out of its turn."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from playbill.bundle.manifest import (
    CURRENT,
    MANIFEST,
    STATE,
    Draft,
    Manifest,
    State,
    check_version,
    decode_draft,
    decode_manifest,
    encode_draft,
    encode_manifest,
)
from playbill.bundle.open import open_bundle
from playbill.bundle.verify import entries_of
from playbill.errors import BundleError
from playbill.tables.files import atomic_folder, sha256_file, sync_folder, sync_tree, write_atomic

# From which states `set_state` may lead to a state. Evaluating again takes a gate back; sealing is `seal` alone.
_FROM: dict[State, tuple[State, ...]] = {
    State.EVALUATED: (State.STAGED, State.EVALUATED, State.GATED),
    State.GATED: (State.EVALUATED, State.GATED),
}


@contextmanager
def stage(bundles: Path, version: str) -> Iterator[Path]:
    """Yield an empty folder for a new bundle; when the block ends it stands at `bundles / version`, whole.

    Fill it, and call `describe` on it last. A block that fails or is killed leaves nothing at `bundles / version`. A
    bundle of that name that is not sealed is replaced.

    Raises:
        BundleError: bad version name, a sealed bundle of that name is there, or `describe` was not called.
    """
    path = bundles / check_version(version)
    _refuse_sealed(path)
    with ExitStack() as lock:
        with atomic_folder(path) as folder:
            yield folder
            if not (folder / STATE).is_file():
                raise BundleError(f"bundle {version}: not described; call describe() on the folder last")
            lock.enter_context(_locked(bundles))
            _refuse_sealed(path)


def describe(folder: Path, manifest: Manifest) -> None:
    """Write what is known of a staged bundle, checksums of reports included; its files are listed when it is sealed."""
    check_version(manifest.version)
    reports = {file.stem: sha256_file(file) for file in sorted((folder / "report").glob("*.json"))}
    write_atomic(folder / STATE, encode_draft(Draft(state=State.STAGED, manifest=manifest, reports=reports)))


def state_of(path: Path) -> State:
    """Return where a bundle stands.

    Raises:
        BundleError: the folder holds no bundle.
    """
    if (path / MANIFEST).is_file():
        return State.PUBLISHED if current(path.parent) == path.name else State.SEALED
    return _draft(path).state


def reports_of(path: Path) -> dict[str, str]:
    """Return the sha256 of each report/<name>.json by name, as the job that wrote it left it.

    Raises:
        BundleError: the folder holds no bundle.
    """
    if (path / MANIFEST).is_file():
        return _sealed_reports(decode_manifest((path / MANIFEST).read_bytes()))
    return _draft(path).reports


def set_state(path: Path, state: State, reports: Mapping[str, str] | None = None) -> None:
    """Move a bundle that is not sealed to `evaluated` or `gated`.

    Args:
        path: of the bundle; state: that it is to have.
        reports: sha256 of every report by name, where some were written; None keeps what is known of them.
    Raises:
        BundleError: the step is not allowed from where the bundle stands; says which are.
    """
    with _locked(path.parent):
        now = state_of(path)
        if state not in _FROM:
            how = {State.SEALED: "seal()", State.PUBLISHED: "publish()", State.STAGED: "export"}[State(state)]
            raise BundleError(f"bundle {path.name}: {state.value} is reached by {how} alone")
        if now not in _FROM[state]:
            allowed = " or ".join(s.value for s in _FROM[state])
            raise BundleError(f"bundle {path.name} is {now.value}; only {allowed} can become {state.value}")
        draft = _draft(path)
        known = draft.reports if reports is None else dict(reports)
        write_atomic(path / STATE, encode_draft(msgspec.structs.replace(draft, state=state, reports=known)))


def seal(path: Path) -> Manifest:
    """Check a gated bundle as opening would, and write its manifest; from then on it never changes.

    Raises:
        BundleError: not gated, or a check fails.
    """
    with _locked(path.parent):
        now = state_of(path)
        if now is not State.GATED:
            raise BundleError(f"bundle {path.name} is {now.value}; only a gated one is sealed")
        manifest = open_bundle(path, require_sealed=False).manifest
        if manifest.version != path.name:
            raise BundleError(f"bundle {path.name}: its state.json says version {manifest.version!r}; export again")
        for left in path.glob(f".{MANIFEST}.*.tmp"):  # of a seal that was killed; the lock says nobody is at it now
            left.unlink()
        sync_tree(path)
        sealed = msgspec.structs.replace(manifest, files=entries_of(path))
        write_atomic(path / MANIFEST, encode_manifest(sealed))
        (path / STATE).unlink()  # a crash before this line is harmless: a manifest outweighs the state
        return open_bundle(path, verify=False).manifest


def reopen(path: Path) -> None:
    """Break the seal of a bundle that is not the current one: it is evaluated again, and may be measured anew.

    Whoever calls it answers for that nobody has been told to use the bundle.

    Raises:
        BundleError: not sealed, the current one, or it does not verify.
    """
    with _locked(path.parent):
        now = state_of(path)
        if now is not State.SEALED:
            raise BundleError(f"bundle {path.name} is {now.value}; only a sealed one is opened again")
        manifest = open_bundle(path).manifest
        draft = Draft(
            state=State.EVALUATED,
            manifest=msgspec.structs.replace(manifest, files={}, seal=""),
            reports=_sealed_reports(manifest),
        )
        write_atomic(path / STATE, encode_draft(draft))
        (path / MANIFEST).unlink()  # a crash before this line is harmless: a manifest outweighs the state
        sync_folder(path)


def publish(bundles: Path, version: str) -> None:
    """Make a sealed bundle the current one, after verifying every byte of it.

    Raises:
        BundleError: not sealed, or it does not verify; the current bundle stays as it was.
    """
    path = bundles / check_version(version)
    with _locked(bundles):
        bundle = open_bundle(path)
        if bundle.version != version:
            raise BundleError(f"bundle {version}: sealed as {bundle.version!r}; a published bundle keeps its name")
        write_atomic(bundles / CURRENT, f"{version}\n".encode())


def current(bundles: Path) -> str | None:
    """Return the version of the published bundle, None when nothing was published.

    Raises:
        BundleError: the pointer holds something else than a version.
    """
    try:
        text = (bundles / CURRENT).read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    return check_version(text.strip())


def _draft(path: Path) -> Draft:
    try:
        return decode_draft((path / STATE).read_bytes())
    except FileNotFoundError:
        raise BundleError(f"no bundle at {path}: neither {MANIFEST} nor {STATE} is there") from None


def _sealed_reports(manifest: Manifest) -> dict[str, str]:
    names = ((PurePosixPath(name), entry) for name, entry in manifest.files.items())
    return {n.stem: e.sha256 for n, e in names if n.parent == PurePosixPath("report") and n.suffix == ".json"}


def _refuse_sealed(path: Path) -> None:
    if (path / MANIFEST).exists():
        raise BundleError(f"bundle {path.name} is sealed and never changes; give the new one another version")


@contextmanager
def _locked(bundles: Path) -> Iterator[None]:
    """Hold the folder's lock: one writer at a time, also across processes; the kernel frees it when a holder dies."""
    bundles.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(bundles / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
