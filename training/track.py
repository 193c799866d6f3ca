"""`playbill track`: bundles and their reports to Weights & Biases, each bundle a run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from playbill.errors import BundleError
from playbill.tables.files import sha256_file, write_atomic
from playbill.training.dashboards.found import FoundBundle, find_bundles
from playbill.training.dashboards.settings import TrackSettings
from playbill.training.tracking import bundle_run, has_key

_BUNDLE = "files"


def run(settings: TrackSettings) -> None:
    """Hand over what was not handed over yet.

    Raises:
        BundleError: no such bundle.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    home = Path(settings.home)
    bundles = find_bundles(home)
    chosen = [b for b in bundles if settings.bundle in ("", b.version)]
    if not chosen:
        there = ", ".join(b.version for b in bundles) or "none"
        asked = f"no bundle {settings.bundle!r}" if settings.bundle else "no bundle"
        raise BundleError(f"{asked} in {home / 'bundles'}; there are: {there}")
    for bundle in chosen:
        folder = home / "tracking" / bundle.version
        sent = _hand_over(bundle, folder, home, settings)
        console.print(f"bundle {bundle.version}: {', '.join(sent) or 'nothing new'}", markup=False)
    if not has_key():
        console.print(f"no WANDB_API_KEY: all is in {home / 'tracking'}, and `wandb sync` sends it", markup=False)


def _hand_over(bundle: FoundBundle, folder: Path, home: Path, settings: TrackSettings) -> list[str]:
    """Send what is new or changed of one bundle and return its names."""
    path = folder / "sent.json"
    before: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.is_file() else {}
    if settings.force or before.get("project") != settings.wandb_project:
        before = {"project": settings.wandb_project, "sha256": {}}
    now = {r.kind: sha256_file(r.path) for r in bundle.reports}
    # the files never change once they are sealed; before that a bundle is handed over again with each state
    now[_BUNDLE] = f"{bundle.manifest.spec_hash} {bundle.manifest.created_at} {bundle.state}"
    new = [kind for kind, digest in now.items() if before["sha256"].get(kind) != digest]
    if not new:
        return []
    origin = bundle.manifest.origin
    config = {
        "bundle": bundle.version,
        "state": bundle.state,
        "rungs": bundle.manifest.rungs,
        "data": {"tables": origin.get("tables", ""), "fingerprint": bundle.manifest.dataset_fingerprint},
        "origin": origin,
    }
    with bundle_run(folder, bundle.version, settings.wandb_project, config) as tracked:
        for report in bundle.reports:
            if report.kind in new:
                tracked.report(report.kind, report.path, report.headlines)
                if report.picture is not None:
                    tracked.picture(report.kind, report.picture)
        if _BUNDLE in new:
            runs = [home / "runs" / origin[name] for name in ("run", "ranker_run") if name in origin]
            tracked.made_of(
                [r for r in runs if r.is_dir()], origin.get("tables", ""), bundle.manifest.dataset_fingerprint
            )
            tracked.bundle(bundle.path, [bundle.state])
    write_atomic(path, msgspec.json.encode({"project": settings.wandb_project, "sha256": now}))
    return new
