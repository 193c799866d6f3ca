"""Presets: a retrieval model chosen by the size and shape of the data, never by its name.

What decides: how many events there are (how often they can be gone through in the time, and how much must be dropped
so that little data is not learned by heart), how long histories are (how far back and how deep to look), how large the
catalogue is (whether every item can be compared), and whether the next event or what comes later is asked for. The
numbers were found on validation parts of public logs of 10^5 and 10^6 events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from playbill.dataset.settings import SplitKind
from playbill.errors import TrainingError
from playbill.features.settings import FeatureSettings
from playbill.tables.folder import read_folder
from playbill.training.settings import Aim, Effort, Loss, Preset, Query, Tables, TrainSettings, TwoTower

_FULL_SOFTMAX_ITEMS = 50_000
# events that are gone through in less than ten minutes, and in about a quarter of an hour, on two cores
_EVENTS = {Effort.fast: 10_000_000, Effort.best: 16_000_000}
_LATER_EVENTS, _LATER_PASSES = 6_000_000, 12  # what comes later is soon learned: few events say much of it
_LATER_K = 100  # it is judged by a longer list, for there are many right answers, and the first ten hardly tell
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Shape:
    """What a preset knows of the data.

    Attributes:
        events, items: how many.
        typical: events of a person, the mean; long: the length that nine people in ten stay below.
    """

    events: int
    items: int
    typical: float
    long: int


def shape_of(tables: Path) -> Shape:
    """Return the shape of a folder of tables; reads one column.

    Raises:
        TrainingError: no events.
    """
    import polars as pl  # late: a finished run is to be known at once

    folder = read_folder(tables)
    events = pl.scan_parquet(tables / "events.parquet")
    names = events.collect_schema().names()
    who = [pl.col(n).cast(pl.String) for n in ("user_id", "session_id") if n in names]
    lengths = events.group_by(pl.coalesce(who)).len().select("len").collect(engine="streaming")["len"]
    if not folder.rows.get("events") or not len(lengths):
        raise TrainingError(f"no events in {tables}: there is nothing to choose a model by")
    typical, long = lengths.mean(), lengths.quantile(0.9)
    assert isinstance(typical, float) and long is not None
    return Shape(folder.rows["events"], folder.rows["items"], typical, int(long))


def resolve(settings: TrainSettings) -> TrainSettings:
    """Return the settings with a preset replaced by what it stands for on this machine: `chosen`, and the precision."""
    from playbill.training.distributed import (
        fast_bf16,  # late: imports torch, and a finished run is to be known at once
    )

    found = chosen(settings)
    return found if found is settings else replace(found, precision="bf16-mixed" if fast_bf16() else "32-true")


def chosen(settings: TrainSettings) -> TrainSettings:
    """Return the settings with a preset replaced by what the data makes of it: model, history length, length of lists.

    A history length other than the default is the caller's and stays.
    """
    preset = settings.model
    if not isinstance(preset, Preset):
        return settings
    shape = shape_of(Path(settings.home) / "tables" / settings.tables)
    aim = preset.aim
    if aim is Aim.auto:
        aim = Aim.next if settings.split.kind is SplitKind.leave_last_out else Aim.later
    model, length = _next(preset.effort, shape) if aim is Aim.next else _later(shape)
    given = settings.features.history_length
    asked = given != FeatureSettings().history_length
    features = replace(settings.features, history_length=given if asked else length)
    metric_k = settings.metric_k if aim is Aim.next else max(settings.metric_k, _LATER_K)
    return replace(settings, model=model, features=features, metric_k=metric_k)


def _next(effort: Effort, shape: Shape) -> tuple[TwoTower, int]:
    """The very next event: order matters, so an HSTU that learns each event from the state right before it."""
    long = shape.typical >= 30
    large = shape.events >= 500_000
    epochs = _epochs(effort, shape.events)
    model = TwoTower(
        query=Query.hstu,
        dim=128 if large else 64,
        blocks=4 if long else 2,
        heads=2,
        hidden=128,
        dropout=_dropout(shape.events),
        stale_share=0.0,
        away_days=0.0,
        empty_share=0.0,
        half_life_days=0.0,
        batch_tokens=2048,
        max_epochs=epochs,
        validate_every=max(1, epochs // 8),
        patience_epochs=3,
        averaging=0.999,
        warmup_steps=200,
        learning_rate=0.003 if large else 0.004,
        weight_decay=0.0,
    )
    return _by_catalogue(model, shape), _length(shape)


def _later(shape: Shape) -> tuple[TwoTower, int]:
    """What comes later: learned from what people did when they came back, the newest visits counting most."""
    epochs = min(max(_LATER_EVENTS // shape.events, 1), _LATER_PASSES)
    model = TwoTower(
        dropout=0.4,
        batch_tokens=1024 if shape.events < 500_000 else 2048,
        max_epochs=epochs,
        averaging=0.999,
    )
    return _by_catalogue(model, shape), _length(shape)


def _epochs(effort: Effort, events: int) -> int:
    return min(max(_EVENTS[effort] // events, 1), 60)


def _dropout(events: int) -> float:
    return 0.2 if events >= 500_000 else 0.4


def _length(shape: Shape) -> int:
    """As far back as nine in ten histories reach, in steps of eight events."""
    return min(max(-(-shape.long // 8) * 8, 16), _LONGEST)


def _by_catalogue(model: TwoTower, shape: Shape) -> TwoTower:
    if shape.items <= _FULL_SOFTMAX_ITEMS:
        return model
    return replace(model, loss=Loss.mixed, tables=Tables.fused, negatives=1024, averaging=0.0)
