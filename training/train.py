"""`playbill train`: decide whether there is anything to do, go on or start afresh, train, record.

Nothing heavy is imported until it is clear that there is something to train.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console

from playbill.errors import ConfigError, TrainingError
from playbill.tables.folder import read_folder
from playbill.training.creative_settings import Creative
from playbill.training.ranking_settings import Ranker
from playbill.training.response_settings import Response
from playbill.training.runs import (
    Run,
    RunRecord,
    let_go,
    new_record,
    put_back,
    read_record,
    read_run,
    retrieval_name,
    start_run,
    write_record,
)
from playbill.training.settings import TrainSettings, TwoTower


def run(settings: TrainSettings) -> int:
    """Train one model; return 0.

    Raises:
        TableError: the tables are not there.
        ConfigError: settings that do not fit the data or the number of processes.
        TrainingError: the retrieval run of a ranker or of creative heads is missing, unfinished, or of other features.
    """
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
    runs = Path(settings.home) / "runs"
    run_dir = runs / settings.run_name
    reads_towers = isinstance(settings.model, Ranker | Creative)
    if settings.retrieval_run is not None and not reads_towers:
        raise ConfigError(f"retrieval_run={settings.retrieval_run} has no effect with model={settings.model.name}")
    read_folder(Path(settings.home) / "tables" / settings.tables)  # first: without tables, a missing run is no news
    retrieval = read_run(runs / retrieval_name(settings), "two_tower") if reads_towers else None
    if retrieval is not None and retrieval.record.refit_of is not None:
        raise TrainingError(
            f"{retrieval.path} has learned validation time, on which a {settings.model.name} is validated; name the "
            f"run that it was made again from: retrieval_run={retrieval.record.refit_of}"
        )
    again = None
    if settings.refit is not None:
        again = _validated(runs / settings.refit, settings)
        settings = _as(again, settings)
    refit = None if again is None else again.record
    record = new_record(settings, retrieval.record if retrieval else None, refit)
    before = read_record(run_dir)
    same = before is not None and before.fingerprint == record.fingerprint and not settings.force
    if same and before is not None and before.completed and (run_dir / "checkpoints" / "best.ckpt").is_file():
        console.print(f"{run_dir} is up to date: {_reached(before)}")
        return 0
    last = run_dir / "checkpoints" / "last.ckpt"
    resume = last if same and last.is_file() else None

    # idle threads sleep: by default they spin, and take turns with working ones whenever other processes run. On a busy
    # machine of two cores that made steps 5 times slower. OpenMP reads this once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from playbill.dataset.counts import in_words
    from playbill.dataset.dataset import open_dataset
    from playbill.features.build import write_features
    from playbill.training.distributed import rank, world_size
    from playbill.training.fit import agree, processes
    from playbill.training.presets import resolve

    asked, settings = settings, resolve(settings)
    if settings is not asked:
        console.print(
            f"chosen by the data: {settings.model}, histories of {settings.features.history_length} events, "
            f"precision {settings.precision}"
        )
    if settings.warm_start is not None:
        from playbill.training.retrieval.warm import warm_run

        warm_run(settings)  # before anything is replaced
    with processes(settings), _kept_until_trained(run_dir, console):
        resume = agree(resume)  # rank 0 is about to change the folder that others may still be reading
        if rank() == 0 and resume is not None:
            console.print(f"going on from {resume}")
        elif rank() == 0:
            if run_dir.exists() and not same:
                console.print(f"{run_dir} was trained with other settings or data: it is replaced")
            start_run(run_dir, settings, record)
        agree(None)
        tables = Path(settings.home) / "tables" / settings.tables
        dataset = open_dataset(tables, settings.features, settings.split, settings.stream_above_events)
        record.data = dataset.counts
        console.print(in_words(dataset.counts))
        if not dataset.counts.train:
            raise TrainingError(
                "no event to learn from in training time; raise split.train, or check consent and item ids"
            )
        record.spec_hash, record.processes = dataset.spec.hash(), world_size()
        if rank() == 0:
            write_features(run_dir, dataset.spec, dataset.vocabularies)
        begun = time.perf_counter()
        if isinstance(settings.model, Response):
            from playbill.training.responses.job import train as train_answers

            train_answers(settings, dataset, run_dir, record, resume)
            tracker = None
        elif retrieval is None:
            from playbill.training.retrieval.job import train as train_towers

            tracker = train_towers(settings, dataset, run_dir, record, resume, refit)
        elif isinstance(settings.model, Creative):
            from playbill.training.creative.job import train as train_heads

            tracker = train_heads(settings, dataset, run_dir, record, resume, retrieval)
        else:
            from playbill.training.ranking.job import train as train_ranker

            tracker = train_ranker(settings, dataset, run_dir, record, resume, retrieval)
        record.seconds = round(time.perf_counter() - begun, 2)
        record.completed = True
        if rank() == 0:
            write_record(run_dir, record)
            let_go(run_dir)
            _say(console, run_dir, record)
        if tracker is not None:
            tracker.finish(msgspec.to_builtins(record))
    return 0


@contextmanager
def _kept_until_trained(run_dir: Path, console: Console) -> Iterator[None]:
    """Give a finished run that is about to be replaced its place back when the new one fails before it has weights."""
    try:
        yield
    except BaseException:
        if os.environ.get("RANK", "0") == "0" and put_back(run_dir):
            console.print(f"{run_dir} is what it was before")
        raise


def _validated(path: Path, settings: TrainSettings) -> Run:
    """Return the run that is to be made again.

    Raises:
        TrainingError: it is none that validation has judged, or of other tables.
        ConfigError: another model was asked for.
    """
    if not isinstance(settings.model, TwoTower) or settings.model != TwoTower():
        raise ConfigError(f"refit={settings.refit} takes the model of that run; leave model away")
    again = read_run(path, "two_tower")
    if again.record.refit_of is not None:
        raise TrainingError(f"{path} was made again itself; name {again.record.refit_of}")
    if again.record.warm_start:
        raise TrainingError(
            f"{path} began with the weights of a bundle; only what began with nothing can be made again"
        )
    if again.record.tables_fingerprint != read_folder(Path(settings.home) / "tables" / settings.tables).fingerprint:
        raise TrainingError(
            f"{path} was trained on other tables than {settings.tables} holds now; train it again first"
        )
    return again


def _as(run: Run, settings: TrainSettings) -> TrainSettings:
    """Return the settings with all that decides what is learned taken from a run."""
    same = ("features", "split", "seed", "precision", "gradient_clip", "metric_k")
    return replace(settings, model=run.model, **{name: getattr(run.settings, name) for name in same})


def _reached(record: RunRecord) -> str:
    if not record.report:
        return f"{record.epochs} epochs, nothing to validate on"
    return f"{record.metric} {record.best:.4f} after epoch {record.best_epoch} of {record.epochs}"


def _say(console: Console, run_dir: Path, record: RunRecord) -> None:
    if record.refit_of is not None:
        console.print(
            f"{run_dir}: {record.refit_of} made again from training and validation time, {record.epochs} epochs, "
            f"{record.seconds:.0f} s, {record.samples_per_second:,.0f} samples/s, {record.peak_mib:,.0f} MiB"
        )
        return
    console.print(
        f"{run_dir}: {_reached(record)}, {record.seconds:.0f} s, {record.samples_per_second:,.0f} samples/s, "
        f"{record.input_share:.1%} of the time waiting for batches, {record.peak_mib:,.0f} MiB"
    )
