"""`playbill tune`: the baselines' numbers picked on validation, and the baselines fitted for a bundle."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from playbill import __version__
from playbill.baselines.chosen import CHOSEN_FORMAT, Baseline, Chosen, read_chosen, write_chosen
from playbill.baselines.fits import prepare, write
from playbill.dataset.dataset import open_dataset
from playbill.features.settings import FeatureSettings
from playbill.release.contestants import rivals
from playbill.release.protocol import log_before
from playbill.release.report import wide_console
from playbill.release.tune_settings import TuneSettings
from playbill.release.tuning import TUNING_VERSION, Bench, Tuned, tune
from playbill.tables.files import alone
from playbill.tables.folder import read_folder


def run(settings: TuneSettings) -> Path:
    """Tune, fit and write <home>/runs/<run>, unless it is there, and return that folder."""
    console = wide_console()
    tables = Path(settings.home) / "tables" / settings.tables
    folder = Path(settings.home) / "runs" / settings.run_name
    asked = [CHOSEN_FORMAT, TUNING_VERSION, read_folder(tables).fingerprint, asdict(settings.split)]
    print_of = hashlib.sha256(msgspec.json.encode([*asked, asdict(settings.rivals)], order="sorted")).hexdigest()
    with alone(folder):
        before = read_chosen(folder)
        if before is not None and before.fingerprint == print_of and before.completed and not settings.force:
            console.print(_table(before))
            console.print(f"[green]up to date[/] {folder}")
            return folder
        if settings.force:
            shutil.rmtree(folder, ignore_errors=True)
        chosen = Chosen(
            fingerprint=print_of,
            tables=settings.tables,
            tables_fingerprint=read_folder(tables).fingerprint,
            split=msgspec.json.encode(settings.split).decode(),
            metric=settings.rivals.tune_for,
            code_version=__version__,
        )
        write_chosen(folder, chosen)  # from here on the folder is not finished
        _tune(settings, tables, folder, chosen)
        chosen.completed = True
        write_chosen(folder, chosen)
    console.print(_table(chosen))
    for note in chosen.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    console.print(f"[green]tuned[/] {folder} ({chosen.seconds:.0f} s); `playbill export` takes it from there")
    return folder


def _tune(settings: TuneSettings, tables: Path, folder: Path, chosen: Chosen) -> None:
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("opening the tables", total=None)
        dataset = open_dataset(tables, FeatureSettings(), settings.split)
        contestants, chosen.notes = rivals(settings.rivals, dataset.spec.num_items)
        bench, full = Bench(dataset), log_before(dataset, "test")
        began = time.monotonic()
        for done, rival in enumerate(contestants):
            progress.update(bar, description=rival.label, completed=done, total=len(contestants))
            tuned = tune(
                bench,
                rival,
                settings.rivals,
                folder / f"{rival.name}.json",
                lambda what: progress.update(bar, description=what),
            )
            progress.update(bar, description=f"{rival.label}: on all before the test")
            write(folder / rival.file, prepare(rival.name, full)(tuned.choice))
            chosen.baselines[rival.name] = _baseline(tuned, rival.file)
            chosen.seconds = round(time.monotonic() - began, 1)


def _baseline(tuned: Tuned, file: str) -> Baseline:
    return Baseline(
        label=tuned.label,
        file=file,
        choice=tuned.choice,
        figure=tuned.figure,
        tries=len(tuned.tries),
        about=tuned.about(),
    )


def _table(chosen: Chosen) -> Table:
    grid = Table("baseline", f"{chosen.metric}, validation", "tries", "numbers", box=SIMPLE_HEAD)
    for baseline in chosen.baselines.values():
        numbers = ", ".join(f"{name} {value:g}" for name, value in baseline.choice.items())
        figure = "" if baseline.figure is None else f"{baseline.figure:.4f}"
        grid.add_row(baseline.label, figure, str(baseline.tries or ""), numbers)
    return grid
