"""`playbill dashboard`: one page of runs, sweeps and bundles, and with a key a workspace with the same panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from playbill.tables.files import write_atomic
from playbill.training.dashboards.found import find
from playbill.training.dashboards.page import page
from playbill.training.dashboards.panels import panels, spec
from playbill.training.dashboards.settings import DashboardSettings
from playbill.training.tracking import has_key, save_workspace


def run(settings: DashboardSettings) -> None:
    """Write <home>/dashboard/index.html and panels.json; with WANDB_API_KEY make the workspace too.

    Raises:
        ConfigError: the workspace could not be made; the page is there all the same.
    """
    console = Console(soft_wrap=True, highlight=False)
    found = find(Path(settings.home))
    sections = panels(found)
    folder = Path(settings.home) / "dashboard"
    write_atomic(folder / "index.html", page(found, sections, settings.most_runs).encode())
    wanted = spec(sections, settings.name)
    write_atomic(folder / "panels.json", msgspec.json.format(msgspec.json.encode(wanted), indent=1) + b"\n")
    counted = f"{len(found.trainings)} runs, {len(found.sweeps)} sweeps, {len(found.bundles)} bundles"
    console.print(f"{folder / 'index.html'}: {counted}", markup=False)
    if not has_key():
        console.print("no WANDB_API_KEY: no workspace was made; set it to have the same panels there", markup=False)
        return
    console.print(f"workspace: {_workspace(wanted, settings, folder / 'workspace.json')}", markup=False)


def _workspace(wanted: dict[str, Any], settings: DashboardSettings, path: Path) -> str:
    """Return the address of the workspace; the one made before is changed where panels differ, else left alone."""
    made = msgspec.json.decode(path.read_bytes()) if path.is_file() else {}
    asked = [settings.entity, settings.wandb_project]
    known = made["url"] if made.get("asked") == asked else None
    if known is not None and made["panels"] == msgspec.json.decode(msgspec.json.encode(wanted)):
        return str(known)
    url = save_workspace(wanted, settings.entity, settings.wandb_project, known)
    write_atomic(path, msgspec.json.encode({"url": url, "asked": asked, "panels": wanted}))
    return url
