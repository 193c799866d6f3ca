"""`playbill blend`: scores the members, fits their weights, judges them, and writes blend.json with its report."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from playbill.blend.judge import FormReport, Judged, Judging, blend_lists, judge, top
from playbill.blend.lists import Lists
from playbill.blend.model import FILE, Blend, read_blend, write_blend
from playbill.blend.scores import check_member, read_lists, read_member, refuse_seen
from playbill.bundle.open import open_bundle
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitKind
from playbill.errors import BlendError, ConfigError
from playbill.features.settings import FeatureSettings
from playbill.measure.bootstrap import compare, intervals
from playbill.measure.ranking import user_metrics
from playbill.release.blend_report import BlendReport, MemberReport, blend_png, show
from playbill.release.blend_settings import BlendSettings
from playbill.release.bundles import content_hash, encode, find_bundle
from playbill.release.evaluate import check_split
from playbill.release.members import Part, Source, baseline_sources, part_of, saved, tower_source
from playbill.release.report import wide_console
from playbill.release.rivals import Progress as Step
from playbill.tables.files import sha256_file, write_atomic
from playbill.tables.folder import read_folder

SERVABLE = ("tower", "item_knn", "transitions", "ease", "ials", "trending", "popularity")
FOLD = "valid"
BLENDING_VERSION = 1  # grows when the same inputs come to give another blend


def run(settings: BlendSettings) -> Blend:
    """Fit, judge, print and write <home>/blends/<name>: blend.json, report.json, report.png and the members' scores.

    Raises:
        BlendError: a member has seen the people that the blend is fitted on, or saved scores cannot be used.
        ConfigError: no such member.
    """
    unknown = [m for m in settings.members if m not in SERVABLE]
    if unknown:
        raise ConfigError(
            f"no member {unknown[0]!r}; there are {', '.join(SERVABLE)}, and folders of scores in `scores`"
        )
    console, folder = wide_console(), Path(settings.home) / "blends" / settings.name
    print_of = _fingerprint(settings)
    before = _read(folder)
    if before is not None and before.fingerprint == print_of and not settings.force:
        show(before, console)
        console.print(f"blend {settings.name} was fitted before and nothing changed")
        return read_blend(folder / FILE)
    started = time.monotonic()
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("opening the tables", total=None)

        def step(label: str, done: int, total: int) -> None:
            progress.update(bar, description=label, completed=done, total=max(total, 1))

        dataset, bundle = open_inputs(settings)
        parts = {name: part_of(dataset, name) for name in (FOLD, "test")}
        if not len(parts[FOLD].who):
            raise BlendError(f"nobody with a history is asked about {FOLD}: there is nothing to fit a blend on")
        lists, members, choices, notes = members_of(settings, dataset, bundle, parts, folder, step)
        blend, judged = judge(
            settings.name, lists[FOLD], parts[FOLD].targets, dataset.spec.num_items, judging(settings), step
        )
    after = tested(blend, judged, lists["test"], parts["test"], dataset.spec.num_items, settings)
    said = verdict(judged, after, settings)
    tables = read_folder(Path(settings.home) / "tables" / settings.tables)
    blend = msgspec.structs.replace(
        blend,
        tables_fingerprint=tables.fingerprint,
        fold=FOLD,
        said=said,
        tower=sha256_file(bundle.file("item_embeddings.npy")) if "tower" in blend.members else "",
        tower_runs=bundle.manifest.origin.get("tower_runs", "").split(",") if "tower" in blend.members else [],
        choices={m: choices[m] for m in blend.members if m in choices},
    )
    report = BlendReport(
        fingerprint=print_of,
        name=settings.name,
        tables=settings.tables,
        split=str(settings.split.kind.value),
        metric=settings.metric,
        ks=settings.ks,
        fold=FOLD,
        judged=judged,
        test_people=len(parts["test"].who),
        test=after,
        members=members,
        weights=blend.weights,
        depth=blend.depth,
        said=said,
        notes=notes,
        seconds=round(time.monotonic() - started, 1),
    )
    write_atomic(folder / "report.png", blend_png(report))
    write_atomic(folder / FILE, write_blend(blend))
    write_atomic(folder / "report.json", encode(report))  # last: a report says that the rest is there
    show(report, console)
    console.print(
        f"blend {settings.name} is in {folder} ({report.seconds:.0f} s); put it into a bundle: "
        f"playbill export blend={settings.name}"
    )
    return blend


def verdict(judged: Judged, test: list[FormReport], settings: BlendSettings) -> str:
    """Return in a sentence whether the blend is worth it, on people of the fold and of the test part."""
    name = settings.metric
    if not judged.forms:
        return f"one member, {judged.best_member}: its own order"
    best = max(judged.forms, key=lambda f: f.metrics[name].value)
    gain = best.less_best[name]
    of = f"{name} {gain.value:+.4f} [{gain.low:+.4f} {gain.high:+.4f}] against {judged.best_member}"
    if not judged.better:
        return f"NO BLEND IS AS GOOD AS ITS BEST MEMBER on held-out people ({of}): {judged.best_member} is kept alone"
    words = "better than" if judged.clearly else "not clearly better than"
    said = f"the blend is {words} its best member on held-out people of the fold ({of})"
    after = next((f for f in test if f.name == "blend"), None)
    if after is None or name not in after.less_best:
        return said
    last = after.less_best[name]
    below = "BELOW it " if last.value < 0 else ""
    return f"{said}; on the test part {below}{last.value:+.4f} [{last.low:+.4f} {last.high:+.4f}]"


def open_inputs(settings: BlendSettings) -> tuple[Dataset, Any]:
    tables = Path(settings.home) / "tables" / settings.tables
    features, split, bundle = FeatureSettings(), settings.split, None
    if settings.bundle is not None and (not settings.members or "tower" in settings.members):
        path = find_bundle(Path(settings.home) / "bundles", settings.bundle)
        bundle = open_bundle(path, require_sealed=False)
        split, features = check_split(bundle.manifest, settings.split, tables)
        if "towers" not in bundle.rungs:
            if "tower" in settings.members:
                raise BlendError(f"bundle {bundle.version} carries no towers; train them, or leave `tower` out")
            bundle = None
    return open_dataset(tables, features, split), bundle


def members_of(
    settings: BlendSettings, dataset: Dataset, bundle: Any, parts: dict[str, Part], folder: Path, step: Step
) -> tuple[dict[str, dict[str, Lists]], list[MemberReport], dict[str, dict[str, float]], list[str]]:
    """Return lists by part and member, what is said of each, the baselines' numbers, and notes on what was left out."""
    tables = read_folder(Path(settings.home) / "tables" / settings.tables)
    split = msgspec.to_builtins(settings.split)
    sources: list[Source] = []
    if bundle is not None and (not settings.members or "tower" in settings.members):
        sources.append(tower_source(bundle, dataset, parts))
    cache = Path(settings.home) / "cache" / "choices"
    run = Path(settings.home) / "runs" / f"{settings.tables}-baselines"
    found, notes = baseline_sources(dataset, settings.members, parts, settings.rivals, cache, step, run)
    sources += found
    lists: dict[str, dict[str, Lists]] = {name: {} for name in parts}
    members = []
    for number, source in enumerate(sources):
        step(f"scoring {source.name}", number, len(sources))
        for name in parts:
            refuse_seen(f"member {source.name}", source.learned.get(name), name, _began(dataset, name))
        made = saved(source, folder / "scores" / source.name, dataset, parts, settings.depth, tables.fingerprint, split)
        for name, given in made.items():
            lists[name][source.name] = given
        members.append(MemberReport(name=source.name, about=source.about, learned=source.learned))
    for path in settings.scores:
        member = read_member(path)
        step(f"reading {member.name}", len(sources), len(sources))
        if member.name in lists[FOLD]:
            raise BlendError(f"{path}: a member named {member.name} is there already; give this one another name")
        there = [n for n in parts if n == FOLD or (Path(path) / f"{n}.parquet").is_file()]
        for name in there:
            check_member(member, path, name, tables.fingerprint, split, _began(dataset, name))
            lists[name][member.name] = read_lists(
                path, name, parts[name].who, dataset.vocabularies["item"], settings.depth
            )
        if "test" not in there:
            notes.append(f"{member.name} has no scores for the test part, so nothing is said of the blend there")
        members.append(MemberReport(name=member.name, about=member.about, learned=member.learned))
    for member_report in members:
        if FOLD in member_report.learned[FOLD].chosen_on:
            notes.append(f"{member_report.name}: settings were chosen on the fold, which flatters it there a little")
    return lists, members, {s.name: s.choice for s in sources if s.name != "tower"}, notes


def _began(dataset: Dataset, part: str) -> int | None:
    split = dataset.split
    if split.kind is not SplitKind.global_time:
        return None
    return split.train_until_us if part == FOLD else split.valid_until_us


def tested(
    blend: Blend, judged: Judged, lists: dict[str, Lists], part: Part, num_items: int, settings: BlendSettings
) -> list[FormReport]:
    """Return members and blend on the test part, compared with the member that was best on the fold."""
    if not len(part.who) or any(m not in lists for m in [*blend.members, judged.best_member]):
        return []
    k = max(settings.ks)
    orders = {m: top(given, k) for m, given in lists.items()}
    orders["blend"] = blend_lists(blend, lists, num_items, k)
    measured = {m: user_metrics(order, part.targets, settings.ks, num_items) for m, order in orders.items()}
    boot: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed, "level": settings.level}
    best = measured[judged.best_member]
    return [
        FormReport(name=m, metrics=intervals(found, **boot), less_best=compare(found, best, **boot))
        for m, found in measured.items()
    ]


def judging(settings: BlendSettings) -> Judging:
    return Judging(
        depth=settings.depth,
        metric=settings.metric,
        ks=settings.ks,
        folds=settings.folds,
        l2=settings.l2,
        resamples=settings.resamples,
        level=settings.level,
        seed=settings.seed,
    )


def _fingerprint(settings: BlendSettings) -> str:
    asked = asdict(settings)
    del asked["force"], asked["home"]
    bundle = ""
    if settings.bundle is not None and (not settings.members or "tower" in settings.members):
        bundle = content_hash(find_bundle(Path(settings.home) / "bundles", settings.bundle))
    files = [
        [sha256_file(f) for f in sorted(Path(path).iterdir()) if f.is_file()] if Path(path).is_dir() else []
        for path in settings.scores
    ]
    tables = read_folder(Path(settings.home) / "tables" / settings.tables).fingerprint
    parts = [BLENDING_VERSION, tables, bundle, files, asked]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted", enc_hook=str)).hexdigest()


def _read(folder: Path) -> BlendReport | None:
    try:
        return msgspec.json.decode((folder / "report.json").read_bytes(), type=BlendReport)
    except (OSError, msgspec.MsgspecError):
        return None  # none yet, or of an older kind
