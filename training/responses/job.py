"""Training of the model of answers, from an open dataset to a run folder with a graph that anybody can ask."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from playbill.dataset.dataset import Dataset, Examples
from playbill.dataset.tallied import item_numbers_at, rows_at, tallies_until, tally_rows, tastes_of
from playbill.errors import ConfigError, TrainingError
from playbill.features.fold import map_values
from playbill.features.tally_file import TallyBook, write_tallies
from playbill.measure.calibration import fit_calibrator
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_table
from playbill.training.batches.rows import learnable, take
from playbill.training.distributed import world_size
from playbill.training.ranking.plain import CALIBRATION
from playbill.training.response_settings import Response
from playbill.training.responses.blocks import Source
from playbill.training.responses.graph import write_response
from playbill.training.responses.learn import Rows, learn, predict
from playbill.training.responses.plain import PlainResponse
from playbill.training.runs import RunRecord, load_weights
from playbill.training.settings import TrainSettings


def train(settings: TrainSettings, dataset: Dataset, run_dir: Path, record: RunRecord, resume: Path | None) -> None:
    """Train, fill `record`, and leave weights, graph and tallies in `run_dir`.

    Raises:
        TrainingError: more than one process, or no event has a value.
        ConfigError: events whose values have different ranges.
    """
    if world_size() > 1:
        raise TrainingError("model=response trains in one process; start it without torchrun")
    model: Response = settings.model
    like_at = mapped_threshold(dataset, model.like_threshold)
    items = tallies_until(dataset, "valid", like_at, list(model.half_lives_days))
    book = TallyBook(items, tastes_of(dataset, items), dataset.spec.history_length, dataset.split.train_until_us)
    values = _values(Path(settings.home) / "tables" / settings.tables)
    rows = _rows(dataset, book, learnable(dataset), values, model)
    valid = rows_at(dataset, "valid", running=not model.frozen)
    held_out = _rows(dataset, book, valid, values, model) if len(valid) else None
    source = Source(dataset, items.spec, book.tastes, book.length)
    whole = PlainResponse(dataset, items.spec, book.tastes, model)
    usual = tally_rows(dataset, items, book.tastes, take(rows.examples, _sample(len(rows.examples))), book.length)
    whole.standardise(np.concatenate([usual.item, usual.person, usual.pair], 1))
    learn(whole, source, rows, held_out, settings, run_dir / "checkpoints", record, resume)
    load_weights(whole, run_dir / "checkpoints" / "best.ckpt")
    write_tallies(run_dir, book)
    fitted = None
    if held_out is not None:
        p = predict(whole, source, held_out, model.block, model.batch_tokens)
        fitted = fit_calibrator(p, held_out.label[:, 0])
        write_atomic(run_dir / CALIBRATION, msgspec.json.format(msgspec.json.encode(fitted), indent=1))
    whole.finish(fitted)
    write_response(whole, run_dir)


def mapped_threshold(dataset: Dataset, threshold: float) -> float:
    """Return a threshold of the raw value as histories hold it.

    Raises:
        ConfigError: the events of a history have values of different ranges, so that no one threshold fits.
    """
    spec = dataset.spec
    codes = np.asarray([e.code for e in spec.events])
    mapped = np.unique(map_values(np.full(len(codes), threshold), codes, spec))
    if len(mapped) > 1:
        names = ", ".join(e.name for e in spec.events)
        raise ConfigError(f"values of {names} have different ranges: name one of them in features.history_events")
    return float(mapped[0])


def _values(tables: Path) -> np.ndarray:
    """Return [E] float64 raw values of the events table, NaN where there is none."""
    events = read_table(tables, "events")
    if "value" not in events.column_names:
        raise TrainingError(
            f"events in {tables} have no column value; model=response learns from answers, such as ratings"
        )
    return np.asarray(events["value"].cast("float64").fill_null(float("nan")))


def _rows(dataset: Dataset, book: TallyBook, rows: Examples, values: np.ndarray, model: Response) -> Rows:
    value = values[dataset.pool.source_row[rows.target_row]]
    known = np.flatnonzero(~np.isnan(value))
    if not len(known):
        raise TrainingError("no event to learn from has a value; model=response learns from answers, such as ratings")
    rows, value = take(rows, known), value[known]
    label = np.stack([value >= t for t in (model.like_threshold, *model.beside)], 1).astype(np.float32)
    return Rows(rows, label, item_numbers_at(dataset, book.items, dataset.pool.item[rows.target_row], rows.now))


def _sample(size: int, most: int = 100_000) -> np.ndarray:
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))
