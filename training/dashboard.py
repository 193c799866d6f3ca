"""`playbill dashboard`: one page of runs, sweeps and bundles, and with a key a workspace with the same panels."""

from __future__ import annotations

from pathlib import Path

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
    if has_key():
        console.print(f"workspace: {save_workspace(wanted, settings.entity, settings.wandb_project)}", markup=False)
    else:
        console.print("no WANDB_API_KEY: no workspace was made; set it to have the same panels there", markup=False)
