"""`playbill export`: trained models, index and baselines, held against each other, into a staged bundle."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from playbill import __version__
from playbill.bundle.answers import ENJOY
from playbill.bundle.campaign_files import put
from playbill.bundle.manifest import Manifest, ModelSignature
from playbill.bundle.open import open_bundle
from playbill.bundle.write import describe, stage, state_of
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.errors import TrainingError
from playbill.training.exporting.blending import write_blend_file
from playbill.training.exporting.contents import write_baselines, write_contents
from playbill.training.exporting.plan import Plan, make_plan
from playbill.training.settings import ExportSettings


def run(settings: ExportSettings) -> Path:
    """Write the bundle that these settings amount to, unless it is there, and return its folder."""
    console = Console(stderr=True, soft_wrap=True)
    plan = make_plan(settings)
    path = plan.bundles / plan.version
    if path.is_dir() and not settings.force:
        console.print(f"[green]up to date[/] bundle {plan.version} ({state_of(path).value}) in {path}")
        return path
    started = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("opening the tables", total=None)
        dataset = open_dataset(plan.tables, plan.features, plan.split)
        for part in (plan.towers, plan.ranker, plan.creative):
            if part is not None and part.spec.hash() != dataset.spec.hash():
                raise TrainingError(f"{part.path} has another feature spec than its tables give now; train again")
        with stage(plan.bundles, plan.version) as folder:
            progress.update(task, description="features, items and baselines")
            write_contents(folder, dataset, plan)
            retrievers, choices = write_baselines(
                folder, dataset, plan, settings.neighbours, settings.half_life_days, settings.near
            )
            models = _models(folder, dataset, plan, settings, progress)
            if plan.blend is not None:
                write_blend_file(folder, plan.blend, choices, plan.twin())
            put(folder, plan.campaign)
            (folder / "rungs.json").write_bytes(msgspec.json.format(msgspec.json.encode(plan.rungs), indent=1))
            describe(folder, _manifest(plan, dataset, models, retrievers))
            progress.update(task, description="opening what was written")
            open_bundle(folder, require_sealed=False)
    carried = [*plan.carried, *([] if plan.response is None else [ENJOY]), *plan.campaign]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    console.print(
        f"[green]staged[/] bundle {plan.version} in {path}: {', '.join(carried)}; {size / 2**20:.1f} MiB, "
        f"{time.monotonic() - started:.1f} s"
    )
    for name, rung in plan.rungs.items():
        if not rung.carried:
            console.print(f"  without {name}: {rung.missing}")
    if plan.tuned.missing:
        console.print(f"  baselines with the usual numbers, without EASE and iALS: {plan.tuned.missing}")
    return path


def _models(
    folder: Path, dataset: Dataset, plan: Plan, settings: ExportSettings, progress: Progress
) -> dict[str, ModelSignature]:
    if plan.towers is None:
        return {}
    # torch is needed from here on alone: a bundle of baselines can be written where it is not installed
    from playbill.training.exporting.models import write_models

    return write_models(folder, dataset, plan, settings.index, progress)


def _manifest(plan: Plan, dataset: Dataset, models: dict[str, ModelSignature], retrievers: dict[str, str]) -> Manifest:
    return Manifest(
        version=plan.version,
        created_at=datetime.now(UTC).isoformat(),
        code_version=__version__,
        dataset_fingerprint=plan.tables_fingerprint,
        spec_hash=dataset.spec.hash(),
        rungs=plan.carried,
        models=models,
        retrievers=retrievers,
        filled=plan.filled(),
        # what a later evaluation must know before it asks this bundle anything
        origin=plan.origin() | {"learned_until_us": str(dataset.split.valid_until_us)},
    )
