"""`question=drift`: two windows of a log, or two logs, compared column by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.drift.columns import Windows, columns_of
from playbill.measure.drift.compare import Pair, compare_windows
from playbill.measure.drift.distance import Kind, Sample
from playbill.measure.drift.settings import DriftQuestion
from playbill.measure.drift.windows import open_log, read_scores
from playbill.measure.people import WHO
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading
from playbill.measure.times import DAY_US, iso, window_us

__all__ = ["run"]


def run(question: DriftQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return which columns changed between two windows, with alarms that two windows of one process rarely raise.

    Raises:
        ConfigError: a window that is none.
        MeasureError: an empty window, a column that is not there, rows without person or time; names column, count and
            first rows.
        TableError: the folder has no tables.
    """
    windows = _windows(question, tables, settings)
    pairs = columns_of(windows, question)
    if question.before_scores:
        pairs.append(_scores(question))
    reading = compare_windows(
        pairs,
        control=question.control,
        min_distance=question.min_distance,
        min_change=question.min_change,
        min_people=question.min_people,
        level=settings.level,
        resamples=question.resamples,
        seed=settings.seed,
    )
    reading.warnings += windows.left_out
    days = [length / DAY_US for length in windows.lengths_us]
    if min(days) < 60 and any(abs(d - 7 * round(d / 7)) > 0.05 for d in days):
        reading.warnings.append(
            f"the windows are of {days[0]:.3g} and {days[1]:.3g} days: unless both are whole weeks they hold different "
            "days of the week, which reads as drift"
        )
    return reading


def _windows(question: DriftQuestion, tables: Path, settings: MeasureSettings) -> Windows:
    after = open_log(tables, question.kind, question.columns)
    before = after
    if question.before_tables:
        named = Path(question.before_tables)
        folder = named if named.is_dir() else Path(settings.home) / "tables" / question.before_tables
        before = open_log(folder, question.kind, question.columns)
    if question.before:
        first, second = window_us(question.before, "question.before"), window_us(question.after, "question.after")
    elif question.before_tables:
        first, second = before.span(), after.span()
    else:
        low, high = after.span()
        middle = (low + high) // 2
        first, second = (low, middle), (middle, high)
    if before is after and first[0] < second[1] and second[0] < first[1]:
        raise MeasureError(
            f"the windows {iso(first[0])}..{iso(first[1])} and {iso(second[0])}..{iso(second[1])} overlap, so rows "
            "would be compared with themselves"
        )
    cut = before.window(*first, "before"), after.window(*second, "after")
    return Windows((before, after), cut, (first[1] - first[0], second[1] - second[0]))


def _scores(question: DriftQuestion) -> Pair:
    frames = [read_scores(path, question.score_column) for path in (question.before_scores, question.after_scores)]
    person = pl.concat([f[WHO] for f in frames]).rank("dense").to_numpy().astype(np.int64) - 1
    values = [f["score"].fill_null(np.nan).to_numpy() for f in frames]
    cut = len(frames[0])
    before, after = Sample(values[0], person[:cut]), Sample(values[1], person[cut:])
    return Pair(f"file.{question.score_column}", "score", Kind.NUMBER, before, after)
