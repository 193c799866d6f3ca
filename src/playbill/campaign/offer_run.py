"""Offers of a campaign: settled once over all who may be written to, audited, and kept in its folder.

Shards, channels and reruns read `offers.parquet`, so nobody is made two offers. People who are held back when their
items are chosen keep their level in it, unmade.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.campaign.budget import Plan
from playbill.campaign.draws import uniform
from playbill.campaign.offer_facts import check_inputs, read_facts
from playbill.campaign.offer_settings import NONE
from playbill.campaign.offers import OfferModel, Worth, settle, worth
from playbill.campaign.settings import Campaign
from playbill.engine.profile import PURPOSE
from playbill.errors import ConfigError, MeasureError, PlaybillError
from playbill.measure.disparity.groups import read_groups
from playbill.measure.disparity.parity import Comparison, Family, compare, correct
from playbill.measure.disparity.settings import DisparityQuestion
from playbill.tables.consent import allowed_rows
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder

KEPT = "offers.parquet"
MODEL, EXPLORED, NO_CONSENT = "model", "explored", "no_consent"


@dataclass(frozen=True, slots=True)
class Settled:
    """Offers of an audience.

    Attributes:
        table: user_id, offer, offer_propensity, offers (levels it was chosen from), offer_reason (model, explored, or
            no_consent), offer_cost (money, at worst).
        plan: of those who do not explore.
        expected, worst: money that all offers cost.
        flagged: groups that get offers unequally often, in words.
        left_out: columns, or people, that could not be compared.
    """

    table: pl.DataFrame
    plan: Plan
    expected: float
    worst: float
    flagged: list[str]
    left_out: list[str]


def decide_offers(
    campaign: Campaign,
    model: OfferModel,
    tables: Path,
    user_ids: pl.Series,
    at: int,
    denied: Collection[int | str] = (),
) -> Settled:
    """Return everybody's offer.

    Args:
        user_ids: [n] those who may be written to, each once.
        at: UTC microseconds; what happened later is not known.
        denied: of whom nothing may be known, whatever the users table says; see `restraint.who_denied`.
    Raises:
        ConfigError: a column that the model learned from may not speak here, a level that it does not know, or a budget
            that does not pay for those who explore.
        PlaybillError: groups get offers unequally often, and `offers.release_unequal` does not say that it is fine.
    """
    offers = campaign.offers
    check_inputs(tables, model.about.spec.inputs, "offers: the model's inputs")
    facts = read_facts(tables, model.about.spec, user_ids, at)
    of = worth(model.chances(facts), model.about.value, offers, model.about.spec.levels)
    ids = user_ids.to_list()
    draws = np.array([[uniform(campaign, "offer explores", u), uniform(campaign, "offer", u)] for u in ids])
    draws = draws.reshape(-1, 2)
    may = _personal(tables, user_ids)
    if denied:
        may &= ~user_ids.is_in(pl.Series(list(denied), dtype=user_ids.dtype).implode()).to_numpy()
    level, propensity = np.zeros(len(ids), np.int64), np.ones(len(ids))
    some = Worth(*(np.asarray(getattr(of, name))[may] for name in Worth.__dataclass_fields__))
    level[may], propensity[may], found = settle(offers, some, model.about.surer, draws[may])
    names = [NONE, *(one.name for one in offers.levels)]
    rows = np.arange(len(ids))
    reason = np.where(~may, NO_CONSENT, np.where(draws[:, 0] < offers.explore, EXPLORED, MODEL))
    table = pl.DataFrame(
        {
            "user_id": user_ids,
            "offer": [names[k] for k in level.tolist()],
            "offer_propensity": propensity,
            "offers": np.where(may, len(names), 1),
            "offer_reason": reason.tolist(),
            "offer_cost": of.worst[rows, level],
        },
        schema_overrides={"offers": pl.Int64, "offer": pl.String, "offer_reason": pl.String},
    )
    flagged, left_out = unequal(campaign, tables, user_ids, level, of.worst[rows, level])
    if flagged and not offers.release_unequal:
        raise PlaybillError(
            "offers are made unequally often: " + "; ".join(flagged[:3]) + ". Leave out the input that tells these "
            "groups apart, or set campaign.offers.release_unequal=true"
        )
    return Settled(
        table, found, float(of.expected[rows, level].sum()), float(of.worst[rows, level].sum()), flagged, left_out
    )


def keep(folder: Path, run: str, settled: Settled) -> None:
    """Write offers.parquet into a campaign's folder, once whole."""
    buffer = io.BytesIO()
    table = settled.table.to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata({"run": run})
    pq.write_table(table, buffer)
    write_atomic(folder / KEPT, buffer.getvalue())


def kept(folder: Path, run: str) -> pl.DataFrame | None:
    """Return what was kept of this run, None where nothing was."""
    if not (folder / KEPT).is_file():
        return None
    table = pq.read_table(folder / KEPT)
    if (table.schema.metadata or {}).get(b"run") != run.encode():
        return None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _personal(tables: Path, user_ids: pl.Series) -> np.ndarray:
    """Return [n] bool: of whom something may be known; nobody else gets an offer that rests on what is."""
    users = pl.read_parquet(tables / "users.parquet")
    rows = user_ids.to_frame("user_id").join(users, on="user_id", how="left", maintain_order="left")
    name = f"consent_{PURPOSE}"
    return allowed_rows(rows.select(["user_id", *([name] if name in rows.columns else [])]).to_arrow(), PURPOSE)


def unequal(
    campaign: Campaign, tables: Path, user_ids: pl.Series, level: np.ndarray, cost: np.ndarray
) -> tuple[list[str], list[str]]:
    """Return in words which groups of people get offers more rarely, or of less money, than chance explains.

    Compared are the groups of `offers.audit`, or of every protected column, and their intersections. Returned second
    is what could not be compared, such as a protected column of many values.
    """
    columns = {c.name: c for c in read_folder(tables).columns.get("users", [])}
    named = campaign.offers.audit or [name for name, c in columns.items() if c.protected]
    missing = [name for name in named if name not in columns]
    if missing:
        raise ConfigError(f"offers.audit: users has no column {', '.join(missing)}; it has {', '.join(columns)}")
    if not named:
        return [], []
    question = DisparityQuestion(columns=campaign.offers.audit, cuts=campaign.offers.cuts)
    try:
        people, families, left_out = read_groups(question, tables)
    except MeasureError as error:
        raise ConfigError(f"offers.audit: {error}; such cuts stand in campaign.offers.cuts") from error
    place = pl.DataFrame({"user_id": people}).with_row_index("row")
    row = user_ids.to_frame("user_id").join(place, on="user_id", how="left", maintain_order="left")["row"].to_numpy()
    found = _compare(families, row, level, cost, len(people), question)
    return [
        f"{c.measure}: {c.group} {c.rate:.3g}, {c.reference} {c.reference_rate:.3g} (adjusted p {c.adjusted:.2g})"
        for c in found
        if c.flagged
    ], left_out


def _compare(
    families: Sequence[Family],
    row: np.ndarray,
    level: np.ndarray,
    cost: np.ndarray,
    people: int,
    question: DisparityQuestion,
) -> list[Comparison]:
    count, made, money = np.zeros(people), np.zeros(people), np.zeros(people)
    count[row], made[row], money[row] = 1, level > 0, cost
    found: list[Comparison] = []
    for family in families:
        shared = {"min_people": question.min_people, "level": 0.95}
        found += compare("offers a person", family, made, count, **shared)  # type: ignore[arg-type]  # both known
        found += compare("money offered a person", family, money, count, least_expected=0.0, **shared)  # type: ignore[arg-type]
    correct(found, question.correction, question.false_alarms)
    return found
