"""How likely people come back without a mail, and with one: from mails that were held back at random.

The chance to return was learned from whoever was mailed and whoever was not, as the shop happened to do it. Decisions
of kind `hold` say "hold" or "send" with the propensity of each: on those the chance is made true once for people held
back and once for people written to, every row weighing 1 / propensity. Where there are too few nothing is kept.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from playbill.campaign.act_features import DAY_US, matrix
from playbill.campaign.acts import Act, Acts
from playbill.measure.bootstrap import Interval, compare
from playbill.measure.calibration import LEAST_EVENTS, fit_calibrator
from playbill.tables.folder import has_table
from playbill.training.campaign.acts_moments import Past

_GRID = np.linspace(-12, 12, 241)
_ENOUGH = 3000  # held-back mails, the latest, after which no earlier day is asked


class Returns(msgspec.Struct, kw_only=True):
    """What held-back mails said.

    Attributes:
        held, sent: mails whose people are known well enough.
        returned_held, returned_sent: shares, by weight.
        gained: how much likelier a mail made a return, with its interval; None where either has nobody.
        missing: why nothing is kept of it; empty where it is.
    """

    held: int
    sent: int
    returned_held: float | None = None
    returned_sent: float | None = None
    gained: Interval | None = None
    missing: str = ""


def learn_returns(
    tables: Path, past: Past, act: Act, acts: Acts, seed: int
) -> tuple[Returns, tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    """Return what was found, and the maps (knots, what they become) without and with a mail; empty ones where none."""
    none: tuple[list[float], list[float]] = ([], [])
    rows = _decided(tables, past, act)
    if not len(rows):
        return (
            Returns(held=0, sent=0, missing="needs decisions of kind hold with a propensity, there are 0"),
            none,
            none,
        )
    p, y, held, weight, back_so_far = [], [], [], [], 0
    for (day,), some in rows.group_by("day", maintain_order=True):
        known = past.known_of(int(str(day)), some["user_id"])
        some = some.join(known, on="user_id", how="inner", maintain_order="left")
        p.append(acts.chance(act, matrix(some)))
        y.append(past.first_after(int(str(day)), "own", some) < act.horizon)
        held.append((some["chosen"] == "hold").to_numpy())
        weight.append(1 / some["propensity"].to_numpy())
        back_so_far += int(held[-1].sum())
        if back_so_far >= _ENOUGH:
            break
    chance, came, back, each = (np.concatenate(v) for v in (p, y, held, weight))
    maps, short = [], []
    for name, arm in (("held back", back), ("sent", ~back)):
        fitted = fit_calibrator(chance[arm], came[arm], each[arm])
        maps.append((_GRID.tolist(), fitted.logits(_GRID).tolist()) if fitted.rows else none)
        least = int(min(came[arm].sum(), (~came[arm]).sum()))
        if not fitted.rows:
            short.append(f"needs {LEAST_EVENTS} mails {name} with and without a return, there are {least}")
    found = Returns(held=int(back.sum()), sent=int((~back).sum()), missing="; ".join(short))
    if found.held and found.sent:
        found.returned_held = float(np.average(came[back], weights=each[back]))
        found.returned_sent = float(np.average(came[~back], weights=each[~back]))
        found.gained = _gained(came, back, each, seed)
    return (found, none, none) if short else (found, maps[0], maps[1])


def _decided(tables: Path, past: Past, act: Act) -> pl.DataFrame:
    """Return user_id, chosen, propensity and day (its first moment) of decisions that are over, the latest first."""
    if not has_table(tables, "decisions"):
        return pl.DataFrame()
    rows = pl.scan_parquet(tables / "decisions.parquet")
    if not {"propensity", "user_id"} <= set(rows.collect_schema().names()):
        return pl.DataFrame()
    first = past.log.first + round(past.words.days * DAY_US)
    last = past.log.last - round((act.horizon + 1) * DAY_US)
    return (
        rows.filter((pl.col("kind") == "hold") & pl.col("user_id").is_not_null() & (pl.col("propensity") > 0))
        .select(
            "user_id",
            pl.col("chosen").cast(pl.String),
            "propensity",
            day=pl.col("at").dt.epoch("us") // DAY_US * DAY_US,
        )
        .filter(pl.col("day").is_between(first, last) & (pl.col("propensity") < 1))
        .sort("day", "user_id", descending=[True, False])
        .collect()
    )


def _gained(came: np.ndarray, held: np.ndarray, weight: np.ndarray, seed: int) -> Interval:
    """Return the difference of weighted shares with its interval over mails (each row's part of its arm's share)."""
    n = len(came)
    sent = np.where(~held, weight * came, 0) * n / weight[~held].sum()
    back = np.where(held, weight * came, 0) * n / weight[held].sum()
    return compare({"gained": sent}, {"gained": back}, seed=seed)["gained"]
