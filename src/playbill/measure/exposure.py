"""Who was assigned, and who of them really met what was tested: first exposure, and the triggered population.

Most people who are assigned to an arm never open the page that differs. Everybody assigned answers "what does it do to
the service?"; those exposed answer "what does it do to who meets it?", with less noise, but only where being exposed
does not depend on the arm. That can be checked: exposed people must divide among the arms as assigned people were
planned to. Where they do not, the treatment itself decides who is counted, and the comparison is of unlike people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.experiments.assignment import Assignment
from playbill.measure.sample_ratio import SampleRatio, sample_ratio
from playbill.measure.scan import ROW, columns_of, refuse, scan

NEVER = np.iinfo(np.int64).max


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """The exposures of one experiment's people, in the order of its assignment.

    Attributes:
        source: what counts as one, such as "events exposure".
        first_us: [n] int64, the first one from the assignment on, microseconds since 1970; NEVER where there is none.
        times: [n] int64, how many there are from then on.
        early: people with exposures before their assignment (those are not counted): the log tells them apart no more.
        strangers: people exposed whom nobody assigned.
        unnamed: exposures that name nobody.
    """

    source: str
    first_us: np.ndarray
    times: np.ndarray
    early: int
    strangers: int
    unnamed: int

    @property
    def exposed(self) -> np.ndarray:
        """[n] bool, the triggered population."""
        return self.times > 0


def read_exposure(tables: Path, assignment: Assignment, *, event: str = "", decision: str = "") -> Exposure:
    """Return who was exposed, and since when.

    An exposure that carries the decision_id of another experiment's assignment belongs to that one and is left out.

    Args:
        tables: a folder with events (or decisions).
        assignment: from `read_assignment`.
        event: events of this name are exposures; or
        decision: decisions of this kind are, such as "item": whoever was served a slate saw it.
    Raises:
        MeasureError: not exactly one of the two, nothing of that name in the log, or an exposure without a time.
        TableError: no such table or column.
    """
    if bool(event) == bool(decision):
        raise MeasureError(f"exposures are events or decisions: give one of them, got {event!r} and {decision!r}")
    table, column, name = ("events", "event", event) if event else ("decisions", "kind", decision)
    rows = scan(tables, table, [column, "at", assignment.unit]).filter(pl.col(column) == name)
    if event and "decision_id" in columns_of(tables, "events"):
        others = scan(tables, "decisions", ["decision_id", "kind", "request_id"]).filter(
            (pl.col("kind") == "experiment_arm") & (pl.col("request_id").cast(pl.String) != assignment.experiment)
        )
        rows = rows.join(others.select("decision_id"), on="decision_id", how="anti", maintain_order="left")
    found = rows.select(ROW, pl.col(assignment.unit).alias("id"), pl.col("at").dt.epoch("us").alias("at_us")).collect()
    if found.is_empty():
        known = scan(tables, table, [column]).select(pl.col(column).unique()).collect().to_series().drop_nulls().sort()
        raise MeasureError(
            f"{table}.{column}: no {name!r}, so nobody is known to be exposed; there are: {', '.join(known)}"
        )
    refuse(found, pl.col("at_us").is_null(), f"{table}.at", "at_us", "an exposure has a time")
    return _exposure(f"{table} {name}", assignment, found)


def exposure_rows(assignment: Assignment, exposure: Exposure) -> list[dict[str, Any]]:
    """Return a row an arm: assigned, exposed, their share, and half of them are exposed within how many hours."""
    rows = []
    for i, arm in enumerate(assignment.arms):
        mine = assignment.arm == i
        seen = mine & exposure.exposed
        wait_h = (exposure.first_us[seen] - assignment.at_us[seen]) / 3.6e9
        rows.append(
            {
                "arm": arm,
                "assigned": int(mine.sum()),
                "exposed": int(seen.sum()),
                "exposed_share": float(seen.sum() / mine.sum()),
                "median_hours_to_exposure": float(np.median(wait_h)) if seen.any() else None,
            }
        )
    return rows


def triggered_ratio(
    assignment: Assignment, exposure: Exposure, threshold: float = 0.001, planned: int = 0
) -> SampleRatio:
    """Return whether the exposed people divide among the arms as those assigned were planned to.

    Flagged means that the arm decides who is exposed: then only everybody assigned can be compared. Without planned
    shares the people assigned stand for the plan, and the check is a little milder than it says.
    `threshold` and `planned` as in `sample_ratio`.
    """
    counts = np.bincount(assignment.arm[exposure.exposed], minlength=len(assignment.arms))
    assigned = np.bincount(assignment.arm, minlength=len(assignment.arms))
    shares = assigned.tolist() if assignment.shares is None else assignment.shares
    return sample_ratio(counts, shares, threshold, planned=planned)


def exposure_warnings(
    assignment: Assignment, exposure: Exposure, threshold: float = 0.001, planned: int = 0
) -> list[str]:
    """Return what speaks against comparing the exposed people alone; arguments as in `triggered_ratio`."""
    warnings = []
    exposed = int(exposure.exposed.sum())
    if exposed:
        ratio = triggered_ratio(assignment, exposure, threshold, planned)
        if ratio.flagged:
            warnings.append(
                f"the arms expose different shares of their people (p = {ratio.p_value:.2g}): the treatment decides "
                "who is exposed, so the exposed are not alike; compare everybody assigned"
            )
    else:
        warnings.append(f"nobody assigned has an exposure ({exposure.source}) after the assignment")
    if exposure.early:
        warnings.append(
            f"{exposure.early:,} people were exposed before they were assigned; those exposures do not count"
        )
    if exposure.strangers:
        warnings.append(f"{exposure.strangers:,} people were exposed and never assigned: the log misses assignments")
    if exposure.unnamed:
        warnings.append(f"{exposure.unnamed:,} exposures name no {assignment.unit} and count for nobody")
    return warnings


def _exposure(source: str, assignment: Assignment, found: pl.DataFrame) -> Exposure:
    named = found.filter(pl.col("id").is_not_null())
    people = pl.DataFrame(
        {"id": assignment.ids, "person": np.arange(len(assignment.ids)), "assigned_us": assignment.at_us}
    )
    theirs = named.join(people, on="id", how="inner")
    after = pl.col("at_us") >= pl.col("assigned_us")
    first = theirs.filter(after).group_by("person").agg(pl.col("at_us").min(), pl.len())
    first_us = np.full(len(people), NEVER)
    times = np.zeros(len(people), np.int64)
    first_us[first["person"].to_numpy()] = first["at_us"].to_numpy()
    times[first["person"].to_numpy()] = first["len"].to_numpy()
    return Exposure(
        source=source,
        first_us=first_us,
        times=times,
        early=theirs.filter(~after)["person"].n_unique(),
        strangers=named.join(people, on="id", how="anti")["id"].n_unique(),
        unnamed=len(found) - len(named),
    )
