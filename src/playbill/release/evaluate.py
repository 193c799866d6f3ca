"""`playbill evaluate`: a bundle on held-out time, beside what one would do instead, tuned on the same split."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from playbill.bundle.manifest import Manifest, State
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.write import current, reopen, reports_of, set_state, state_of
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import BundleError, ConfigError
from playbill.features.settings import FeatureSettings
from playbill.release.bundles import (
    CHECKS,
    MEASURED,
    WRITTEN_LATER,
    altered_reports,
    content_hash,
    encode,
    find_bundle,
    is_sealed,
    read_report,
)
from playbill.release.calibrating import CalibrationReport
from playbill.release.checks import in_lines, run_checks
from playbill.release.page import write_page
from playbill.release.plots import calibration_png, evaluation_png
from playbill.release.protocol import Asked, ask
from playbill.release.report import (
    CURRENT_MODEL,
    EVALUATION_VERSION,
    SERVED,
    Evaluation,
    Road,
    measure,
    table,
    wide_console,
)
from playbill.release.rivals import rival_roads
from playbill.release.roads import engine_road, tower_road
from playbill.release.settings import CURRENT, EvaluateSettings
from playbill.release.trial import servers_know
from playbill.release.variety import VarietyReport, variety_png
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder


def run(settings: EvaluateSettings) -> None:
    """Measure, print, and write report/evaluation.json, evaluation.png and index.html into the bundle.

    Raises:
        BundleError: the bundle was made of other tables or another split, or is sealed and cannot be written to.
    """
    console, bundles = wide_console(), Path(settings.home) / "bundles"
    tables = Path(settings.home) / "tables" / settings.tables
    path = find_bundle(bundles, settings.bundle)
    print_of = _fingerprint(settings, path, bundles, tables)
    state = state_of(path)
    amiss = not is_sealed(state) and altered_reports(path).keys() & set(MEASURED)
    before = None if amiss else read_report(path, "evaluation", Evaluation)
    if before is not None and before.fingerprint == print_of and not settings.force:
        show(before, console)
        console.print(f"bundle {path.name} was measured before and nothing changed")
        return
    beside = bundle_beside(settings, bundles, path)
    if is_sealed(state):
        if before is None:
            raise BundleError(f"bundle {path.name} was sealed without an evaluation and never changes; export again")
        if (beside or "") == before.against or servers_know(bundles, path.name):
            show(before, console)
            console.print(f"bundle {path.name} is sealed: this is what was measured then, and it stays so")
            return
        # no server was told to use it, and its figures were measured beside a bundle that is not asked for any more
        reopen(path)
        console.print(f"bundle {path.name} was sealed and never in use: measured again beside {beside or 'none'}")
    started = time.monotonic()
    bundle = open_bundle(path, require_sealed=False)
    split, features = check_split(bundle.manifest, settings.split, tables)
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        dataset = open_dataset(tables, features, split)
        if dataset.spec.hash() != bundle.spec.hash():
            raise BundleError(f"bundle {path.name} has another feature spec than its tables give now; export again")
        asked = ask(dataset, "test")
        roads, notes, other = collect(settings, bundle, bundles, beside, tables, dataset, asked, progress)
        told = progress.add_task("", total=None)
        checks = run_checks(
            settings,
            bundle,
            other,
            tables,
            dataset,
            asked,
            roads[0],
            lambda label: progress.update(told, description=label),
        )
    models, best = measure(
        roads,
        asked.targets,
        asked.known,
        dataset.spec.num_items,
        settings.ks,
        resamples=settings.resamples,
        seed=settings.seed,
        level=settings.level,
    )
    evaluation = Evaluation(
        fingerprint=print_of,
        content=content_hash(path),
        bundle=path.name,
        tables=settings.tables,
        protocol=protocol_of(dataset, asked, settings),
        ks=settings.ks,
        users={"all": len(asked), "known": int(asked.known.sum()), "new": int((~asked.known).sum())},
        best_rival=best,
        models=models,
        against=beside or "",
        notes=notes,
        seconds=round(time.monotonic() - started, 1),
    )
    _write(path, evaluation, checks)
    show(evaluation, console)
    for line in in_lines(checks):
        console.print(f"  {line}", style="dim", markup=False, highlight=False)
    console.print(f"bundle {path.name} is evaluated ({evaluation.seconds:.0f} s); see {path / 'report' / 'index.html'}")


def collect(
    settings: EvaluateSettings,
    bundle: Bundle,
    bundles: Path,
    beside: str | None,
    tables: Path,
    dataset: Dataset,
    asked: Asked,
    progress: Progress,
) -> tuple[list[Road], list[str], Bundle | None]:
    """Return the lists of all models, ours first, notes on what could not be measured, and the bundle beside it.

    Args:
        beside: version of the bundle that is asked the same, see `bundle_beside`.
    """
    k = max(settings.ks)
    bar = progress.add_task("the engine", total=None)

    def step(label: str, done: int, total: int) -> None:
        progress.update(bar, description=label, completed=done, total=max(total, 1))

    def answered(done: int, total: int) -> None:
        step("asking the engine", done, total)

    label = "tower + ranker (served)" if "ranker" in bundle.rungs else f"served ({_best_rung(bundle)})"
    ours = [engine_road(bundle, tables, dataset, asked, k, SERVED, label, answered)]
    if "towers" in bundle.rungs:
        ours.append(tower_road(bundle, dataset, asked, k))
    notes, other = [], None
    if beside is not None:
        try:
            found = open_bundle(bundles / beside)
            _check_not_ahead(found.manifest, dataset)
            ours.append(
                engine_road(found, tables, dataset, asked, k, CURRENT_MODEL, f"current bundle {beside}", answered)
            )
            other = found
        except BundleError as error:
            notes.append(f"current bundle {beside} was not measured: {error}")
    cache = Path(settings.home) / "cache" / "rivals"
    run = Path(settings.home) / "runs" / f"{settings.tables}-baselines"
    theirs, left_out = rival_roads(dataset, asked, settings.rivals, k, cache, step, run)
    return [*ours, *theirs], [*notes, *left_out], other


def bundle_beside(settings: EvaluateSettings, bundles: Path, path: Path) -> str | None:
    """Return the version of the bundle that is asked the same, None where it is the evaluated one or nothing is in use.

    Raises:
        BundleError: no bundle of the version that was asked for.
    """
    version = current(bundles) if settings.against == CURRENT else find_bundle(bundles, settings.against).name
    return None if version == path.name else version


def check_split(manifest: Manifest, split: SplitSettings, tables: Path) -> tuple[SplitSettings, FeatureSettings]:
    """Return the split and features that a bundle was made with.

    Raises:
        BundleError: it was made of other tables or with another split, so it may have learned what it would be asked.
    """
    if manifest.dataset_fingerprint != read_folder(tables).fingerprint:
        raise BundleError(
            f"bundle {manifest.version} was made of tables {manifest.origin.get('tables', '?')} with fingerprint "
            f"{manifest.dataset_fingerprint[:12]}, {tables} has {read_folder(tables).fingerprint[:12]}; train and "
            "export on these tables"
        )
    try:
        theirs = msgspec.json.decode(manifest.origin["split"], type=SplitSettings)
        features = msgspec.json.decode(manifest.origin["features"], type=FeatureSettings)
    except (KeyError, msgspec.MsgspecError, ConfigError) as error:
        raise BundleError(
            f"bundle {manifest.version} does not say what it was trained on ({error!r}), so nothing is known to be "
            "held out; export again"
        ) from error
    if theirs != split:
        raise BundleError(
            f"bundle {manifest.version} was trained with split {_words(theirs)}, the evaluation asks for "
            f"{_words(split)}: it may have learned what it would be asked; give split.* as in training, or train again"
        )
    return theirs, features


def protocol_of(dataset: Dataset, asked: Asked, settings: EvaluateSettings) -> dict[str, str | int | float]:
    """Return in words and figures how this is measured."""
    split = dataset.split
    moments: dict[str, str | int | float] = {}
    if split.kind is SplitKind.global_time:
        moments = {
            "trained on events before": _iso(split.train_until_us),
            "asked at": _iso(split.valid_until_us),
        }
    return {
        "split": _words(settings.split),
        **moments,
        "models": "frozen after validation; baselines tuned on validation and fitted on all before the test part",
        "lists": "one a person over the whole catalogue, all earlier events removed, a person without a list scores 0",
        "people without a history": "get popularity from the tower and from every personal baseline",
        "items": dataset.spec.num_items,
        "targets": len(asked.targets.item),
        "targets left out because the person had had them": asked.repeats,
        "people left out because nothing new remained": asked.nothing_new,
        "intervals": f"{settings.level:.0%} of {settings.resamples} bootstrap resamples of people, percentile",
    }


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the tables of an evaluation."""
    if not evaluation.users["all"]:
        console.print("nobody has an event in the test part: nothing was measured")
    for k in evaluation.ks if evaluation.users["all"] else []:
        console.print(table(evaluation, k))
    for name in ("known", "new"):
        if evaluation.users[name]:
            console.print(table(evaluation, max(evaluation.ks), name))
    for model in evaluation.models:
        console.print(f"  {model.label}: {model.about}", style="dim", markup=False, highlight=False)
    for note in evaluation.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)


def _write(path: Path, evaluation: Evaluation, checks: Mapping[str, object]) -> None:
    report = path / "report"
    written = {name: encode(checks[name]) for name in CHECKS if name in checks}
    for name in CHECKS:
        if name in written:
            write_atomic(report / f"{name}.json", written[name])
        else:
            (report / f"{name}.json").unlink(missing_ok=True)
    calibration = checks.get("calibration")
    (report / "calibration.png").unlink(missing_ok=True)
    if isinstance(calibration, CalibrationReport) and calibration.tasks:
        write_atomic(report / "calibration.png", calibration_png(calibration.tasks))
    variety = checks.get("variety")
    (report / "variety.png").unlink(missing_ok=True)
    if isinstance(variety, VarietyReport):
        write_atomic(report / "variety.png", variety_png(variety))
    written["evaluation"] = encode(evaluation)
    write_atomic(report / "evaluation.json", written["evaluation"])
    write_atomic(report / "evaluation.png", evaluation_png(evaluation))
    # an earlier verdict was about other figures
    for name in WRITTEN_LATER:
        (report / f"{name}.json").unlink(missing_ok=True)
    write_atomic(report / "index.html", write_page(path.name, report).encode())
    kept = {name: sha256 for name, sha256 in reports_of(path).items() if name not in MEASURED + WRITTEN_LATER}
    set_state(path, State.EVALUATED, kept | {n: hashlib.sha256(data).hexdigest() for n, data in written.items()})


def _fingerprint(settings: EvaluateSettings, path: Path, bundles: Path, tables: Path) -> str:
    asked = asdict(settings)
    for name in ("home", "bundle", "force", "against"):
        del asked[name]
    beside = bundle_beside(settings, bundles, path)
    parts = [EVALUATION_VERSION, content_hash(path), read_folder(tables).fingerprint, beside, asked]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def _check_not_ahead(other: Manifest, dataset: Dataset) -> None:
    """Refuse to ask a bundle about what it may have learned."""
    learned = other.origin.get("learned_until_us", "")
    if dataset.split.kind is not SplitKind.global_time or not learned.isdigit():
        raise BundleError("it does not say until when it learned, so it may know the answers")
    if int(learned) > dataset.split.valid_until_us:
        raise BundleError(
            f"it learned from events until {_iso(int(learned))}, people are asked as of "
            f"{_iso(dataset.split.valid_until_us)}: it may know the answers"
        )


def _best_rung(bundle: Bundle) -> str:
    names = {"towers": "tower", "item_knn": "item-kNN"}
    return next((names[rung] for rung in names if rung in bundle.rungs), "popularity")


def _words(split: SplitSettings) -> str:
    if split.kind is SplitKind.global_time:
        return f"global time {split.train:g}/{split.valid:g}/{max(0.0, 1 - split.train - split.valid):.2g}"
    return "leave last out" + (f" by {split.order_column}" if split.order_column else "")


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
