"""Which rungs of answers the data can carry, and how much is missing for the others.

Rules and popularity need next to nothing; a tower trained on a few hundred events loses to item-to-item.
Export builds a bundle with exactly the rungs that stand here, and each slate names the reason.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl

from playbill.errors import TableError
from playbill.tables.folder import has_table
from playbill.tables.quality import collect, scan
from playbill.tables.schema import CONSENT_PREFIX
from playbill.tables.settings import SufficiencySettings

SUFFICIENCY_FILE = "report/sufficiency.json"

RUNGS = ("popularity", "item_knn", "towers", "ranker", "creative_heads", "send_time", "uplift")


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One rung: whether the data carries it, the number that decides, and a sentence when it does not.

    Attributes:
        have, need: the count that decides and its threshold; the first that is short, where several are needed.
        missing: what is short, by how much; empty where the rung is carried.
    """

    carried: bool
    have: int
    need: int
    missing: str = ""


class Sufficiency(msgspec.Struct, frozen=True, kw_only=True):
    """`report/sufficiency.json`: the rungs by name."""

    rungs: dict[str, Rung]

    def carried(self) -> list[str]:
        """Return the names of the rungs that the data carries."""
        return [name for name, rung in self.rungs.items() if rung.carried]


class _Counts(msgspec.Struct, kw_only=True):
    events: int = 0  # with a person and a known item, of people who allow training
    people: int = 0
    items: int = 0
    creative_choices: int = 0
    send_hours: int = 0
    treated: int = 0
    arms: int = 0


def measure_sufficiency(path: Path | str, settings: SufficiencySettings) -> Sufficiency:
    """Return which rungs a folder of tables carries; only rows whose person allows `training` are counted."""
    counts = _count(Path(path))
    interactions = ("events with a person and an item of the catalogue", counts.events)
    people = ("people with such events", counts.people, settings.towers_people)
    towers = ((*interactions, settings.towers_events), people)
    ranker = ((*interactions, settings.ranker_events), people)
    choices = ("logged creative choices with a propensity", counts.creative_choices, settings.creative_decisions)
    hours = ("logged send hours of people", counts.send_hours, settings.send_time_decisions)
    treated = ("people in logged experiment arms", counts.treated, settings.uplift_people)
    return Sufficiency(
        rungs={
            "popularity": _rung((*interactions, 1)),
            "item_knn": _rung((*interactions, settings.item_knn_events), (people[0], people[1], 2)),
            "towers": _rung(*towers),
            "ranker": _rung(*ranker),
            # what people like is learned from all that they do, and which image they answer from choices
            "creative_heads": _rung(*ranker, choices),
            "send_time": _rung(hours),
            "uplift": _rung(treated, ("arms with people in them", counts.arms, 2)),
        }
    )


def _rung(*needs: tuple[str, int, int]) -> Rung:
    short = [(what, have, need) for what, have, need in needs if have < need]
    _, have, need = (short or needs)[0]
    missing = "; ".join(f"{need - have:,} more {what}: {have:,} of {need:,}" for what, have, need in short)
    return Rung(carried=not short, have=have, need=need, missing=missing)


def _count(path: Path) -> _Counts:
    counts = _Counts()
    if has_table(path, "events") and has_table(path, "items"):
        events = _consenting(path, scan(path, "events"))
        names = events.collect_schema().names()
        if "item_id" in names:
            person = [pl.col(name).cast(pl.String) for name in ("user_id", "session_id") if name in names]
            rows = events.join(scan(path, "items").select("item_id"), on="item_id", how="semi")
            rows = rows.with_columns(pl.coalesce(person).alias("person")).filter(pl.col("person").is_not_null())
            counts.events, counts.people, counts.items = collect(
                rows.select(pl.len(), pl.col("person").n_unique(), pl.col("item_id").n_unique().alias("items"))
            ).row(0)
    if has_table(path, "decisions"):
        _count_decisions(path, counts)
    return counts


def _count_decisions(path: Path, counts: _Counts) -> None:
    decisions = _consenting(path, scan(path, "decisions"))
    names = decisions.collect_schema().names()

    def number(frame: pl.LazyFrame, expression: pl.Expr) -> int:
        return int(collect(frame.select(expression)).item())

    if "propensity" in names:
        logged = pl.col("propensity").is_not_null()
        counts.creative_choices = number(decisions.filter((pl.col("kind") == "creative") & logged), pl.len())
    if "user_id" in names:
        mine = decisions.filter(pl.col("user_id").is_not_null())
        counts.send_hours = number(mine.filter(pl.col("kind") == "send_hour"), pl.len())
        arms = mine.filter(pl.col("kind") == "experiment_arm")
        counts.treated = number(arms, pl.col("user_id").n_unique())
        counts.arms = number(arms, pl.col("chosen").n_unique())


def _consenting(path: Path, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the rows of people who allow training; where no such column exists, all (the rule of `consent.py`)."""
    flag = CONSENT_PREFIX + "training"
    if not has_table(path, "users") or flag not in scan(path, "users").collect_schema().names():
        return rows
    if "user_id" not in rows.collect_schema().names():
        return rows.filter(pl.lit(False))
    agreed = scan(path, "users").filter(pl.col(flag).fill_null(False)).select("user_id")
    return rows.join(agreed, on="user_id", how="semi")


def read_sufficiency(path: Path | str) -> Sufficiency:
    """Return the sufficiency report of a folder of tables.

    Raises:
        TableError: the folder has none, or it cannot be read.
    """
    file = Path(path) / SUFFICIENCY_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Sufficiency)
    except (OSError, msgspec.DecodeError) as error:
        raise TableError(f"{file} cannot be read ({error}); write it with `playbill prepare force=true`") from error
