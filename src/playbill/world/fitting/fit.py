"""The job `playbill fit`: estimate the world's numbers from real logs, and show how far the world is from them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.console import Console

from playbill.tables.files import atomic_folder, sha256_file
from playbill.world.fitting.compare import compare
from playbill.world.fitting.estimate import DATA_SETS, estimate
from playbill.world.fitting.report import write_report
from playbill.world.fitting.settings import FitSettings
from playbill.world.fitting.worlds import presets, samples

_FORMAT = 2  # grows when the same logs come to give other files


def run(settings: FitSettings) -> Path:
    """Write the fit report and return its folder.

    Raises:
        WorldError: none of the logs is there.
    """
    console = Console(stderr=True)
    data = Path(settings.data)
    target = Path(settings.out) if settings.out else Path(settings.home) / "fit"
    mark = _fingerprint(settings, data)
    if not settings.force and (target / "fit.json").is_file():
        before = msgspec.json.decode((target / "fit.json").read_bytes())
        if before.get("fingerprint") == mark:
            console.print(f"{target} is up to date; force=true fits again", soft_wrap=True)
            return target
    result = estimate(data, settings.seed, console)
    if settings.compare:
        with console.status("generating worlds to compare"):
            worlds = {"fitted": result.parameters} | presets()
            target.parent.mkdir(parents=True, exist_ok=True)
            for name, parameters in worlds.items():
                result.shown[name] = samples(parameters, result.found, target.parent, settings.seed)
        result.comparisons = compare(result.found, result.shown, settings.seed)
    with atomic_folder(target) as out:
        text = write_report(result, out, mark)
    console.print(text, soft_wrap=True, markup=False, highlight=False)
    console.print(f"wrote {target}", soft_wrap=True)
    return target


def _fingerprint(settings: FitSettings, data: Path) -> str:
    files = {
        f"{name}/{path.name}": sha256_file(path)
        for name in DATA_SETS
        for path in sorted((data / name).glob("*.parquet"))
    }
    asked = {k: v for k, v in asdict(settings).items() if k in ("seed", "compare")}
    whole = msgspec.json.encode([_FORMAT, asked, sorted(files.items())])
    return hashlib.sha256(whole).hexdigest()[:16]
