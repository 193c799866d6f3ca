"""trivago's log as lists that were shown and touches of hotels before them.

A clickout shows the list that it was made from, in order and with prices, and names the hotel that was taken. Whatever
else names a hotel (images, infos, deals, ratings looked at, searches, earlier clickouts) is a touch of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import SourceError
from playbill.features.shown_lists import ShownLists, Touches
from playbill.features.tallies import last_before

TAKEN = "clickout item"
KINDS = {
    "interaction item image": "images",
    "interaction item info": "infos",
    "interaction item deals": "deals",
    "interaction item rating": "ratings",
    "search for item": "searches",
    TAKEN: "taken",
}
PLACES = 25
_NEEDED = ("user_id", "session_id", "timestamp", "step", "action_type", "reference", "impressions", "prices")


def read_trivago(path: Path) -> tuple[ShownLists, Touches, np.ndarray]:
    """Return the lists that something was taken from, all touches, and [R] int64 the user of each list.

    Lists whose taken hotel was not among those shown teach nothing of an order and are left out.

    Args:
        path: sessions.parquet.
    Raises:
        SourceError: no such file, or columns are missing.
    """
    if not path.is_file():
        raise SourceError(f"no trivago log at {path}; data=DIR must hold trivago-100k/sessions.parquet")
    log = pl.read_parquet(path)
    if missing := [name for name in _NEEDED if name not in log.columns]:
        raise SourceError(f"{path} has no column {', '.join(missing)}")
    # rows of one session in the order of its steps: several share a second, and their order is known
    log = log.with_row_index("row").sort("user_id", "session_id", "step", "row").with_row_index("order")
    log = log.with_columns(
        pl.struct("user_id", "session_id").rank("dense").cast(pl.Int64).alias("session"),
        pl.col("user_id").rank("dense").cast(pl.Int64).alias("user"),
        pl.col("order").cast(pl.Int64),
    )
    done = log.filter(pl.col("action_type").is_in(list(KINDS)) & pl.col("reference").is_not_null())
    clicks = log.filter((pl.col("action_type") == TAKEN) & pl.col("impressions").is_not_null())
    shown = clicks.select(
        "order",
        pl.col("impressions").str.split("|").list.head(PLACES),
        pl.col("prices").str.split("|").list.head(PLACES),
    ).explode("impressions", "prices", empty_as_null=True)
    hotels = pl.concat([done["reference"], shown["impressions"]]).unique(maintain_order=True)
    number = pl.DataFrame({"hotel": hotels, "item": np.arange(len(hotels))})
    kind = {name: place for place, name in enumerate(KINDS)}
    done = done.join(number, left_on="reference", right_on="hotel", maintain_order="left")
    touches = Touches(
        session=done["session"].to_numpy(),
        item=done["item"].to_numpy(),
        kind=done["action_type"].replace_strict(kind).to_numpy().astype(np.int64),
        order=done["order"].to_numpy(),
        at=done["timestamp"].to_numpy(),
    )
    shown = shown.join(number, left_on="impressions", right_on="hotel", maintain_order="left")
    row = np.searchsorted(clicks["order"].to_numpy(), shown["order"].to_numpy())
    first = np.flatnonzero(np.diff(row, prepend=-1))
    place = np.arange(len(row)) - np.repeat(first, np.diff(np.append(first, len(row))))
    item = np.full((len(clicks), PLACES), -1, np.int64)
    price = np.zeros((len(clicks), PLACES))
    item[row, place] = shown["item"].to_numpy()
    price[row, place] = shown["prices"].cast(pl.Float64).to_numpy()
    wanted = clicks.join(number, left_on="reference", right_on="hotel", how="left", maintain_order="left")
    hit = item == wanted["item"].fill_null(-2).to_numpy()[:, None]
    lists = ShownLists(
        session=clicks["session"].to_numpy(),
        order=clicks["order"].to_numpy(),
        at=clicks["timestamp"].to_numpy(),
        item=item,
        price=price,
        taken=hit.argmax(1),
    )
    kept = np.flatnonzero(hit.any(1))
    return lists.take(kept), touches, clicks["user"].to_numpy()[kept]


def touched_first(lists: ShownLists, touches: Touches) -> np.ndarray:
    """Return [R, C] int64 ranks (0 = first) of the rule "touched earlier in the session first".

    The newest touch comes first, which is the strongest form of the rule; what was not touched follows as shown.
    """
    size = 1 + max(int(touches.item.max()), int(lists.item.max()))
    most = lists.item.shape[1]
    asked = (lists.session[:, None] * size + np.maximum(lists.item, 0)).reshape(-1)
    pair = touches.session * size + touches.item
    before = last_before(pair, touches.order, asked, np.repeat(lists.order, most)).reshape(lists.item.shape)
    order = np.argsort(np.where(lists.item >= 0, -before, 2), axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")
