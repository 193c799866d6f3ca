"""The small Open Bandit data as a log, and as tables: random logging, production Bernoulli-TS as the target policy.

Ten thousand impressions by each of two policies, for three campaigns. The logging policy drew items uniformly; the
target's probabilities by item and position stand in bts_prior.parquet. What the target policy really brought, in its
own ten thousand impressions, is the on-policy value that estimates are held against; with 42 to 69 clicks it is itself
an estimate, so its own interval stands beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.measure.off_policy.log import Choices, Log
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind

CAMPAIGNS = ("all", "men", "women")
USER_FEATURES = tuple(f"user_feature_{i}" for i in range(4))


def impressions(data: Path, policy: str, campaign: str) -> pl.DataFrame:
    """Return the impressions of a policy (random or bts)."""
    return pl.read_parquet(data / "open-bandit-small" / f"{policy}_{campaign}.parquet")


def bts_probabilities(data: Path, campaign: str) -> np.ndarray:
    """Return [3, K] float64: the probability of each item at each position under Bernoulli-TS."""
    prior = pl.read_parquet(data / "open-bandit-small" / "bts_prior.parquet").filter(pl.col("campaign") == campaign)
    return prior.sort("item_id").select("p_pos1", "p_pos2", "p_pos3").to_numpy().T


def open_bandit_log(data: Path, campaign: str) -> Log:
    """Return the randomly logged impressions, for Bernoulli-TS; each impression is a unit of its own."""
    rows, target = impressions(data, "random", campaign), bts_probabilities(data, campaign)
    n, items = len(rows), target.shape[1]
    action, position = rows["item_id"].cast(pl.Int64).to_numpy(), rows["position"].cast(pl.Int64).to_numpy() - 1
    hashes = [rows[name].to_dummies().to_numpy() for name in USER_FEATURES]
    return Log(
        reward=rows["click"].to_numpy(),
        propensity=rows["propensity_score"].to_numpy(),
        target=target[position, action],
        action=action,
        position=position,
        features=np.hstack(hashes),
        choices=Choices(
            first=np.arange(n + 1) * items,
            action=np.tile(np.arange(items), n),
            target=target[position].ravel(),
            logging=np.full(n * items, 1 / items),
            chosen=np.arange(n) * items + action,
        ),
    )


def on_policy_value(data: Path, campaign: str) -> tuple[float, float, float]:
    """Return what Bernoulli-TS brought in its own impressions, with the exact 95 % binomial interval."""
    from scipy.stats import binomtest

    clicks = impressions(data, "bts", campaign)["click"].to_numpy()
    interval = binomtest(int(clicks.sum()), len(clicks)).proportion_ci(0.95)
    return float(clicks.mean()), float(interval.low), float(interval.high)


def write_open_bandit(data: Path, campaign: str, folder: Path) -> Path:
    """Write the randomly logged impressions as tables, the target's probabilities beside them; return the latter."""
    rows, target = impressions(data, "random", campaign), bts_probabilities(data, campaign)
    n, items = len(rows), target.shape[1]
    at = pa.array(rows["timestamp"].str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="us")).cast(
        pa.timestamp("us", tz="UTC")
    )
    number, position = pa.array(np.arange(n)), rows["position"].cast(pl.Int64).to_numpy() - 1
    decisions = pa.table(
        {
            "decision_id": number,
            "request_id": number,
            "kind": pa.array(["item"] * n),
            "chosen": rows["item_id"].cast(pl.Int64).to_arrow(),
            "at": at,
            "session_id": number,
            "position": pa.array(position.astype(np.float64)),
            "propensity": rows["propensity_score"].to_arrow(),
            "policy": pa.array(["random"] * n),
            "context": rows.select(pl.struct(USER_FEATURES).struct.json_encode())
            .to_series()
            .cast(pl.String)
            .to_arrow(),
        }
    )
    clicked = np.flatnonzero(rows["click"].to_numpy())
    events = pa.table(
        {
            "event_id": pa.array(clicked),
            "session_id": pa.array(clicked),
            "event": pa.array(["click"] * len(clicked)),
            "at": at.take(pa.array(clicked)),
            "decision_id": pa.array(clicked),
        }
    )
    items_table = pa.table({"item_id": pa.array(np.arange(items))})
    tables = {"items": items_table, "events": events, "decisions": decisions}
    kinds = {"kind": Kind.TEXT, "event": Kind.TEXT, "policy": Kind.TEXT, "context": Kind.TEXT, "at": Kind.TIME}
    kinds |= {"position": Kind.NUMBER, "propensity": Kind.NUMBER}
    columns = {
        name: [Column(name=c, kind=kinds.get(c, Kind.ID)) for c in table.column_names] for name, table in tables.items()
    }
    write_folder(
        folder, tables, source=f"open-bandit-small, {campaign}", columns=columns, events=[EventKind(name="click")]
    )
    every = pa.ListArray.from_arrays(np.arange(n + 1) * items, np.tile(np.arange(items), n))
    chances = pa.ListArray.from_arrays(np.arange(n + 1) * items, target[position].ravel())
    logging = pa.ListArray.from_arrays(np.arange(n + 1) * items, np.full(n * items, 1 / items))
    chosen = target[position, rows["item_id"].cast(pl.Int64).to_numpy()]
    file = folder.parent / f"bts_{campaign}.parquet"
    pq.write_table(
        pa.table(
            {
                "decision_id": number,
                "probability": pa.array(chosen),
                "actions": every,
                "probabilities": chances,
                "logging": logging,
            }
        ),
        file,
    )
    return file
