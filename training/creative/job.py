"""Training of the creative heads, from an open dataset and a finished retrieval run to a finished run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console

from playbill.bundle.creatives import OWN_SD, CreativeSpec, write_creatives
from playbill.dataset.dataset import Dataset
from playbill.dataset.settings import SplitKind
from playbill.errors import ConfigError, TrainingError
from playbill.features.creatives import CREATIVE_INDEX, creative_fields
from playbill.features.encoder import Arrays, encode_fields
from playbill.features.spec import Field
from playbill.features.vocabulary import Vocabulary
from playbill.tables.folder import read_folder, read_table
from playbill.training.batches.rows import learnable, take
from playbill.training.creative.data import CreativeData
from playbill.training.creative.decisions import Decisions, Moments, read_decisions
from playbill.training.creative.module import FIGURES, METRIC, CreativeModule
from playbill.training.creative.people import tower_vectors
from playbill.training.creative.places import places, unit_spread
from playbill.training.creative.plain import load_trained, write_levels
from playbill.training.creative.prior import fit_prior, settle
from playbill.training.creative.profile import contents, profiles
from playbill.training.creative_settings import MOST_FEATURES, Creative
from playbill.training.distributed import rank
from playbill.training.fit import agree, train_run
from playbill.training.runs import Run, RunRecord
from playbill.training.settings import TrainSettings
from playbill.training.tracking import Tracker

_MOST_CHOICES = 100_000  # events that places are measured from; more of them change little


def train(
    settings: TrainSettings, dataset: Dataset, run_dir: Path, record: RunRecord, resume: Path | None, retrieval: Run
) -> Tracker | None:
    """Train the heads, fit the prior of their last layer, and fill `record`. Returns the tracker, if any.

    Left in the run folder: weights in checkpoints/, and what `playbill.bundle.creatives` reads, prior included.

    Raises:
        TrainingError: the retrieval run has other features, or there are no decisions to learn from or to validate on.
        ConfigError: more features than the last layer may weigh, or a split without a moment.
    """
    model: Creative = settings.model
    if retrieval.spec.hash() != dataset.spec.hash():
        raise TrainingError(
            f"{retrieval.path} was trained on other features; train model=two_tower with the same features and split"
        )
    if settings.split.kind is not SplitKind.global_time:
        raise ConfigError(
            f"model=creative needs split.kind=global_time, got {settings.split.kind.name}: decisions are parted by "
            "the moment at which they were made"
        )
    tables = Path(settings.home) / "tables" / settings.tables
    data, vocabularies = make_data(tables, dataset, model, retrieval)
    module = CreativeModule(data, settings)
    width = len(data.fields) + model.main + model.match + 1
    if width > MOST_FEATURES:
        raise ConfigError(
            f"{len(data.fields)} columns of content, model.main={model.main} and model.match={model.match} are {width} "
            f"features, at most {MOST_FEATURES}; lower one, or name fewer model.columns"
        )
    tracker = train_run(
        "creative heads", module, settings, FIGURES, module.size, run_dir, record, resume, metric=METRIC
    )
    if rank() == 0:
        trained = load_trained(data, settings, run_dir / "checkpoints" / "best.ckpt")
        own_sd = settle(trained, data, model)
        write_levels(run_dir, trained)
        prior = fit_prior(trained, data, model.weight_sd)
        spec = CreativeSpec(
            head=record.fingerprint,
            width=width,
            reward=model.reward_event,
            horizon_days=model.within_h / 24,
            fields=data.fields,
        )
        write_creatives(run_dir, spec, data.arrays | {OWN_SD: own_sd}, vocabularies, prior)
        report = record.report
        Console(stderr=True).print(
            f"log loss of a click: by title {report['title_log_loss']:.5f}, with the creative {report['log_loss']:.5f}"
        )
    agree(None)  # the files are there
    return tracker


def make_data(
    tables: Path, dataset: Dataset, model: Creative, retrieval: Run
) -> tuple[CreativeData, dict[str, Vocabulary]]:
    """Return all that one training holds in memory, and the vocabularies of the creatives' fields.

    Raises:
        TrainingError: nothing to learn from or to validate on, or no creative that says anything.
    """
    moments, decisions, notes = read_decisions(tables, dataset, model)
    if rank() == 0:
        for note in notes:
            Console(stderr=True, soft_wrap=True).print(note)
    split = dataset.split
    train = decisions.take(decisions.at < split.train_until_us)
    valid = decisions.take((decisions.at >= split.train_until_us) & (decisions.at < split.valid_until_us))
    for part, name in ((train, "training"), (valid, "validation")):
        _check(part, name)
    creatives = read_table(tables, "creatives")
    fields, vocabularies = creative_fields(
        creatives,
        read_folder(tables).columns["creatives"],
        None if model.columns is None else list(model.columns),
        None if model.text is None else list(model.text),
        model.text_width,
    )
    if not fields:
        raise TrainingError(
            f"no column of creatives in {tables} says what they show: all are ids, bookkeeping or hardly ever repeat; "
            "name one in model.columns, a text in model.text, or add tags or vectors"
        )
    arrays = creative_arrays(creatives, fields, vocabularies)
    people, items = tower_vectors(dataset, moments, retrieval.path)
    owner = dataset.vocabularies["item"].indices(creatives["item_id"])
    known = {name: array[1:] for name, array in arrays.items()}
    choices, chosen = _choices(dataset)
    table = contents(fields, known, owner, items, chosen)
    found, before = profiles(dataset, moments, table), profiles(dataset, choices, table)
    # of a size at which steps are learned as well as with any other input
    size = float(np.sqrt(np.square(before).sum(1).mean())) if before.any() else 1.0
    table, found, before = table / size, found / size, before / size
    mean = found[train.moment].mean(0, dtype=np.float64)
    neutral = mean / max(float(np.linalg.norm(mean)), 1e-12)
    where = unit_spread(places(fields, known, owner, chosen, before, neutral), fields, arrays, train, found)
    return CreativeData(fields, arrays, people, items, found, table, where, train, valid, neutral), vocabularies


def _choices(dataset: Dataset) -> tuple[Moments, np.ndarray]:
    """Return the moments right before events of training time, and item_index [R] of what was chosen then."""
    rows = learnable(dataset)
    some = np.unique(np.linspace(0, len(rows) - 1, _MOST_CHOICES).astype(np.int64))
    chosen = take(rows, some)
    return Moments(chosen.person, chosen.now), dataset.pool.item[chosen.target_row]


def creative_arrays(creatives: pa.Table, fields: list[Field], vocabularies: dict[str, Vocabulary]) -> Arrays:
    """Return the arrays of the unknown creative and the whole table, [C + 1, ...] each."""
    names = {name for field in fields for name in field.reads}
    columns = {n: pa.chunked_array([pa.nulls(1).cast(creatives[n].type), *creatives[n].chunks]) for n in sorted(names)}
    rows = creatives.num_rows + 1
    return {CREATIVE_INDEX: np.arange(rows), **encode_fields(columns, rows, fields, vocabularies)}


def _check(part: Decisions, name: str) -> None:
    clicks = int(part.clicked.sum()) if len(part) else 0
    choices = (part.eligible >= 0).sum(1) > 1 if len(part) else np.zeros(0, bool)
    if not clicks or not choices.any():
        raise TrainingError(
            f"{name} time has {len(part):,} decisions about creatives, {clicks:,} of them answered and "
            f"{int(choices.sum()):,} with more than one creative to choose from; nothing can be learned from that: log "
            "more, or move split.train and split.valid"
        )
