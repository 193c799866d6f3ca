"""A declared metric, computed for every person: their totals in the window, and the same before the assignment."""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.errors import MeasureError
from playbill.measure.experiments.influence import Figure, of_mean, of_ratio, of_restricted_time
from playbill.measure.experiments.metrics import ANY, Count, Kind, Metric, Take
from playbill.measure.experiments.rows import DAY_US, Rows


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of n people.

    Attributes:
        kind: how they become one figure.
        people: [n] int64, rows of the assignment: those who were watched for the whole window.
        total: [n] float64: the value (0 or 1 of a proportion), the numerator of a ratio, or the days of a time.
        per: [n] float64, denominators of a ratio; None otherwise.
        happened: [n] bool, whether the event ended the days of a time; None otherwise.
        horizon_days: of a time; 0 otherwise.
        earlier: [n] float64, the metric before the assignment; None where nothing was read or all are alike.
        too_late: people left out, since the log ends before their window does.
    """

    kind: Kind
    people: np.ndarray
    total: np.ndarray
    per: np.ndarray | None
    happened: np.ndarray | None
    horizon_days: float
    earlier: np.ndarray | None
    too_late: int

    def take(self, keep: np.ndarray) -> Values:
        """Return the values of some of the people ([n] bool)."""

        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[keep]

        return Values(
            kind=self.kind,
            people=self.people[keep],
            total=self.total[keep],
            per=some(self.per),
            happened=some(self.happened),
            horizon_days=self.horizon_days,
            earlier=some(self.earlier),
            too_late=self.too_late,
        )

    def figure(self) -> Figure:
        """Return the figure of these people.

        Raises:
            MeasureError: nobody, or nothing to divide by.
        """
        if self.per is not None:
            return of_ratio(self.total, self.per)
        if self.happened is not None:
            return of_restricted_time(self.total, self.happened, self.horizon_days)
        return of_mean(self.total)


def values_of(metric: Metric, rows: Rows, assigned_us: np.ndarray, *, pre_days: float) -> Values:
    """Return a metric's values by person.

    People whose window is not over when the log ends are left out (all arms alike, since the day of assignment is no
    effect of the arm); of kind time they are censored. Who was assigned after the log's end was never watched, and is
    left out of every metric.

    Args:
        assigned_us: [N] int64, microseconds since 1970.
        pre_days: days before assignment whose values CUPED may use; 0 for none.
    Raises:
        MeasureError: nobody was watched for the whole window.
    """
    people = np.arange(len(assigned_us))
    watched_days = (rows.until_us - assigned_us) / DAY_US
    whole = metric.window_days if metric.window_days is not None and metric.kind is not Kind.TIME else 0.0
    people = people[(watched_days >= whole) & (watched_days > 0)]
    if not len(people):
        raise MeasureError(
            f"nobody was watched for {whole:g} days (longest {watched_days.max(initial=0):.3g}); wait, or shorten the "
            "window (question.window_days, question.until)"
        )
    low = round(metric.from_days * DAY_US)
    high = None if metric.window_days is None else round(metric.window_days * DAY_US)
    before = -round(pre_days * DAY_US)
    per = happened = None
    horizon = 0.0
    if metric.kind is Kind.TIME:
        horizon = float(metric.window_days or 0)
        first = _first_days(metric.count, rows, len(assigned_us), 0)
        limit = np.minimum(np.maximum(watched_days, 0.0), horizon)
        happened, total = first <= limit, np.minimum(first, limit)
        earlier = np.minimum(_first_days(metric.count, rows, len(assigned_us), before), pre_days)
    else:
        total, earlier = (
            _person(metric, _totals(metric.count, rows, len(assigned_us), start, end))
            for start, end in ((low, high), (before, 0))
        )
        if metric.per is not None:
            per = _totals(metric.per, rows, len(assigned_us), low, high)
            earlier = _linear(earlier, _totals(metric.per, rows, len(assigned_us), before, 0))
    earlier = earlier[people]
    return Values(
        kind=metric.kind,
        people=people,
        total=total[people],
        per=None if per is None else per[people],
        happened=None if happened is None else happened[people],
        horizon_days=horizon,
        earlier=earlier if pre_days and np.ptp(earlier) > 0 else None,
        too_late=len(assigned_us) - len(people),
    )


def _person(metric: Metric, totals: np.ndarray) -> np.ndarray:
    if metric.kind is Kind.PROPORTION:
        reached: np.ndarray = (totals >= metric.at_least) != metric.absent
        return reached.astype(np.float64)
    return totals if metric.cap is None else np.minimum(totals, metric.cap)


def _linear(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return what each person's earlier totals say of the ratio: its influence, over all arms; 0 for the unseen."""
    return of_ratio(numerators, denominators).influence if denominators.sum() > 0 else np.zeros(len(numerators))


def _chosen(count: Count, rows: Rows) -> np.ndarray:
    kind, names = ("event", count.events) if count.events else ("decision", count.decisions)
    wanted = [
        name.startswith(f"{kind} ") if ANY in names else name in {f"{kind} {n}" for n in names} for name in rows.names
    ]
    chosen = np.array(wanted, bool)[rows.what] if len(rows.what) else np.zeros(0, bool)
    for column in count.needs:
        chosen = chosen & rows.has[column]
    return chosen & rows.has["session_id"] if count.take is Take.SESSIONS else chosen


def _totals(count: Count, rows: Rows, people: int, low: int, high: int | None) -> np.ndarray:
    """Return [people] float64: what is taken of each person's rows in low <= since_us < high."""
    chosen = _chosen(count, rows) & (rows.since_us >= low)
    if high is not None:
        chosen &= rows.since_us < high
    person = rows.person[chosen]
    if count.take is Take.VALUE:
        summed: np.ndarray = np.bincount(person, weights=rows.value[chosen], minlength=people)
        return summed
    if count.take is not Take.COUNT:
        each = (rows.day if count.take is Take.DAYS else rows.session)[chosen]
        each = each - each.min(initial=0)
        wide = int(each.max(initial=0)) + 1
        # one number a pair, sorted: numpy's own unique hashes, and takes twenty times as long over such numbers
        pairs = np.sort(person * wide + each)
        person = pairs[np.diff(pairs, prepend=-1) != 0] // wide
    counted: np.ndarray = np.bincount(person, minlength=people).astype(np.float64)
    return counted


def _first_days(count: Count, rows: Rows, people: int, low: int) -> np.ndarray:
    """Return [people] float64: days from `low` (microseconds since assignment) to the first row; inf without one."""
    chosen = _chosen(count, rows) & (rows.since_us >= low)
    first = np.full(people, np.inf)
    np.minimum.at(first, rows.person[chosen], (rows.since_us[chosen] - low) / DAY_US)
    return first
