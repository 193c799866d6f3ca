"""Do groups of people get lists that are equally good? The served lists by the protected columns of the users table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from playbill.dataset.dataset import Dataset
from playbill.errors import MeasureError
from playbill.measure.disparity.groups import read_groups
from playbill.measure.disparity.parity import Comparison, Family, compare, correct
from playbill.measure.disparity.settings import Correction, DisparityQuestion
from playbill.measure.ranking import user_metrics
from playbill.release.protocol import Asked
from playbill.release.report import Road

_FALSE_ALARMS = 0.04  # a margin under 5 %, as in `playbill measure question=disparity`


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One group of people beside the largest group of its column; see `measure.disparity.parity.Comparison`."""

    group: str
    people: int
    value: float | None
    reference: str
    reference_value: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    p_value: float | None
    p_corrected: float | None
    differs: bool
    not_judged: str


class DisparityReport(msgspec.Struct, kw_only=True):
    """`report/disparity.json`.

    Attributes:
        metric: of each person's served list.
        gaps: of every group, corrected together for their number (Holm).
        notes: what was left out, or why nothing was compared.
    """

    metric: str
    gaps: list[Gap]
    notes: list[str] = []


def measure_disparity(
    served: Road, tables: Path, dataset: Dataset, asked: Asked, *, k: int, level: float, min_people: int
) -> DisparityReport:
    """Return how a group's mean metric compares with that of the largest group of its column.

    Args:
        served: lists of the people asked.
        tables: folder whose users table has protected columns; without any nothing is compared, and the report says so.
        k: cut-off of the metric, ndcg.
        level: of the intervals.
        min_people: smaller groups are named and not judged.
    """
    metric = f"ndcg_at_{k}"
    try:
        user_ids, families, notes = read_groups(DisparityQuestion(intersections=1), tables)
    except MeasureError as error:
        return DisparityReport(metric=metric, gaps=[], notes=[f"no groups to compare: {error}"])
    values = user_metrics(served.lists, asked.targets, [k], dataset.spec.num_items)[metric]
    row = {user_id: number for number, user_id in enumerate(user_ids.tolist())}
    rows = np.asarray([row.get(dataset.user_ids[p], -1) for p in asked.person.tolist()])
    gaps = compared(values, [_of(family, rows) for family in families], metric, level, min_people)
    return DisparityReport(metric=metric, gaps=gaps, notes=notes)


def compared(values: np.ndarray, families: Sequence[Family], metric: str, level: float, min_people: int) -> list[Gap]:
    """Return every group's gap. Args: values: [U] float; families: of groups of these U people."""
    found = [
        comparison
        for family in families
        for comparison in compare(
            metric, family, values, np.ones(len(values)), min_people=min_people, level=level, least_expected=0
        )
    ]
    correct(found, Correction.HOLM, _FALSE_ALARMS)
    return [_gap(comparison) for comparison in found]


def _of(family: Family, rows: np.ndarray) -> Family:
    """Return the family over some people. Args: rows: [U] int64 place in the family, -1 for nobody."""
    code = np.where(rows >= 0, family.code[rows], -1)
    return Family(family.name, code, family.groups, family.reference)


def _gap(c: Comparison) -> Gap:
    return Gap(
        group=c.group,
        people=c.people,
        value=c.rate,
        reference=c.reference,
        reference_value=c.reference_rate,
        ratio=c.ratio,
        ratio_low=c.ratio_low,
        ratio_high=c.ratio_high,
        p_value=c.p_value,
        p_corrected=c.adjusted,
        differs=c.flagged,
        not_judged=c.not_judged,
    )
