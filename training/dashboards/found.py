"""What lies under a home: runs with their figures, sweeps, and bundles with every report that concerns them.

Reports are read as files: the rooms that write them know nothing of dashboards or trackers, and need not.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from playbill.bundle.manifest import MANIFEST, STATE, Manifest, decode_draft, decode_manifest
from playbill.bundle.write import state_of
from playbill.errors import BundleError, TrainingError
from playbill.training.runs import RunRecord, read_record
from playbill.training.sweeping.journal import Journal, read_journal

_MOST_LEAVES = 60  # figures of a report whose form is not known here
# what is made with a bundle: its folder under home, and the file of each that names the bundle
_USES = {"batch": "_batch.json", "campaign": "_campaign.json"}


@dataclass(slots=True)
class Training:
    """One run folder: its record and figures, the newest run last."""

    name: str
    path: Path
    record: RunRecord
    rows: list[dict[str, float]]
    system: list[dict[str, float]]

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Return (step, value) of a figure; `system/...` is of system.csv."""
        rows, name = (self.system, key[7:]) if key.startswith("system/") else (self.rows, key)
        return [(row["step"], row[name]) for row in rows if name in row]


@dataclass(slots=True)
class Report:
    """One report about a bundle: kind is evaluation, gate, ..., batch-<name>, campaign-<name>."""

    kind: str
    path: Path
    payload: Any
    picture: Path | None = None

    @property
    def headlines(self) -> dict[str, Any]:
        return headlines(self.kind, self.payload)


@dataclass(slots=True)
class FoundBundle:
    """One bundle and all reports that concern it."""

    version: str
    path: Path
    state: str
    manifest: Manifest
    reports: list[Report] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, Any]:
        """Return every headline of every report by `<kind>/<name>`, as they are tracked."""
        return {f"{r.kind}/{name}": value for r in self.reports for name, value in r.headlines.items()}


@dataclass(slots=True)
class Found:
    """All of a home."""

    home: Path
    trainings: list[Training]
    sweeps: list[tuple[Journal, Path]]
    bundles: list[FoundBundle]
    others: list[tuple[str, Path]]  # measure and rehearsal: (title, file to open)


def find(home: Path) -> Found:
    """Return what lies under a home; what cannot be read is left out."""
    sweeps = []
    for path in sorted((home / "sweeps").glob("*/trials.json")):
        try:
            journal = read_journal(path.parent)
        except TrainingError:
            continue
        if journal is not None:
            sweeps.append((journal, path.parent))
    others = [
        (f"{place.name} {path.name}", file)
        for place in (home / "measure", home / "rehearsals")
        for path in sorted(p for p in (place.iterdir() if place.is_dir() else []) if p.is_dir())
        for file in [next(iter(sorted([*path.glob("*.html"), *path.glob("*.txt"), *path.glob("*.png")])), path)]
    ]
    return Found(home, list(_trainings(home / "runs")), sweeps, find_bundles(home), others)


def find_bundles(home: Path) -> list[FoundBundle]:
    """Return the bundles of a home, the oldest first, each with its reports and those of what was made with it."""
    bundles = {}
    for path in sorted((home / "bundles").iterdir()) if (home / "bundles").is_dir() else []:
        try:
            if (path / MANIFEST).is_file():
                manifest = decode_manifest((path / MANIFEST).read_bytes())
            elif (path / STATE).is_file() and not path.name.startswith("."):
                manifest = decode_draft((path / STATE).read_bytes()).manifest
            else:
                continue
            bundles[path.name] = FoundBundle(path.name, path, state_of(path).value, manifest)
        except BundleError:
            continue
    for version, bundle in bundles.items():
        for path in sorted((bundle.path / "report").glob("*.json")):
            picture = path.with_suffix(".png")
            _add(bundles, version, Report(path.stem, path, _json(path), picture if picture.is_file() else None))
    for room, plan in _USES.items():
        for done in sorted((home / room).glob("*/_SUCCESS")):
            made, success = _json(done.with_name(plan)), _json(done)
            if isinstance(made, dict) and isinstance(success, dict):
                _add(bundles, made.get("bundle", ""), Report(f"{room}-{done.parent.name}", done, {**made, **success}))
    return sorted(bundles.values(), key=lambda b: b.manifest.created_at)


def headlines(kind: str, payload: Any) -> dict[str, Any]:
    """Return the figures of a report that are worth a panel, by name: numbers, flags, short words.

    Of an evaluation: <model>/<slice>/<metric>, and its interval under /low and /high. Of a gate: passed, failed. Of
    others whatever stands in them, up to a limit.
    """
    if kind == "evaluation":
        return dict(_evaluation(payload))
    if kind == "gate":
        failed = [rule["name"] for rule in payload["rules"] if rule["verdict"] == "failed"]
        return {"passed": int(payload["passed"]), "failed": len(failed), "which": ", ".join(failed)}
    leaves = _leaves(payload)
    return dict(pair for pair, _ in zip(leaves, range(_MOST_LEAVES), strict=False))


def _evaluation(payload: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for model in payload["models"]:
        for name, figures in model["slices"].items():
            for metric, interval in figures["metrics"].items():
                key = f"{model['name']}/{name}/{metric}"
                yield key, interval["value"]
                yield f"{key}/low", interval["low"]
                yield f"{key}/high", interval["high"]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 100):
        yield prefix or "value", value


def _add(bundles: Mapping[str, FoundBundle], version: str, report: Report) -> None:
    if version in bundles and report.payload is not None:
        bundles[version].reports.append(report)


def _trainings(runs: Path) -> Iterator[Training]:
    folders = [p for p in (runs.iterdir() if runs.is_dir() else []) if not p.name.startswith(".")]
    there = [p for p in folders if (p / "run.json").is_file()]
    for path in sorted(there, key=lambda p: ((p / "run.json").stat().st_mtime, p.name)):
        record = read_record(path)
        if record is not None:
            yield Training(path.name, path, record, _rows(path / "metrics.csv"), _rows(path / "system.csv"))


def _rows(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if k and v} for row in csv.DictReader(file)]


def _json(path: Path) -> Any:
    """Return what stands in a file, None where it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
