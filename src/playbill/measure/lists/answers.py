"""Targets that answer the very list they judge: what people did with what it had shown them.

A list that was served makes its own targets: people play what stands before them. Judged by such targets it looks
better than a list that nobody saw, however good that one would have been.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.measure.lists.catalogue import Catalogue
from playbill.measure.lists.measured import by_person
from playbill.measure.lists.source import Lists
from playbill.measure.ranking import Targets
from playbill.measure.scan import columns_of, scan


def answered_share(
    tables: Path, lists: Lists, person: np.ndarray, targets: Targets, catalogue: Catalogue, events: list[str]
) -> float | None:
    """Return the share of targets with an event that names a decision of their own list (events.decision_id).

    A person's lists weigh equally and people weigh equally, as in the metrics: few people make most of the targets.

    Args:
        tables: with decisions and events.
        lists: of the decisions.
        person: [L] int64, whose each list is.
        targets: of those lists.
        catalogue: of the items.
        events: names that make an item a target; empty means all.
    Returns:
        None where it cannot be known: the tables have no decision_id, or there are no targets.
    """
    if not len(targets.item) or any("decision_id" not in columns_of(tables, name) for name in ("decisions", "events")):
        return None
    rows = pl.LazyFrame({"list": lists.key, "row": np.arange(len(lists.key))}).drop_nulls()
    decisions = scan(tables, "decisions", ["decision_id", "request_id"]).select(
        "decision_id", pl.col("request_id").cast(pl.String).alias("list")
    )
    done = scan(tables, "events", ["event", "decision_id", "item_id"])
    if events:
        done = done.filter(pl.col("event").is_in(events))
    answers = (
        done.select("decision_id", "item_id")
        .drop_nulls()
        .join(decisions.join(rows, on="list"), on="decision_id")
        .select("row", "item_id")
        .unique()
        .collect()
    )
    width = len(catalogue) + 1
    answered = answers["row"].to_numpy() * width + catalogue.rows_of(answers["item_id"]) + 1
    of = np.repeat(np.arange(len(targets)), targets.counts())
    hit = np.isin(of * width + targets.item, answered)
    asked = targets.counts() > 0
    share = np.bincount(of, hit, minlength=len(targets))[asked] / targets.counts()[asked]
    return float(by_person(person[asked], {"share": share})["share"].values.mean())


def answer_warnings(name: str, share: float | None, compared: bool) -> list[str]:
    """Return what the share says against figures of a served source, and against its comparison with another."""
    if share is None:
        return [
            f"{name}: without decision_id in decisions and events, how many targets answer the very list that they "
            "judge is not known"
        ]
    if not share:
        return []
    said = (
        f"{name}: {share:.1%} of the mean person's targets answer the very list that they judge: it was shown, and "
        "people did what stood before them, so a list that was not served would look worse however good it is"
    )
    return [said + ("; the comparison favours what was served (question=off_policy does not)" if compared else "")]
