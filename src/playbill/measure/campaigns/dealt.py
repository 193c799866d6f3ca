"""Who was dealt to a campaign and who was held out, as the arms of an experiment.

Two questions have two controls, and each its own people.

Whoever the campaign's own holdout left out shows what this campaign did beside everything else that went on. Who is
held back for a reason that stood before that deal (consent, caps, quiet hours, the global holdout) is in neither arm:
they would have been held back in either. Those found only when their items were chosen were dealt, and count as sent.

Whoever the global holdout leaves out of all campaigns shows what they do together. That deal is older than caps,
fatigue and unsubscribing, which come of messages that this holdout never got: leaving those people out would take the
keenest from one arm alone. So its arms are the whole audience, whatever else holds, the other holdout included.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from playbill.errors import MeasureError

CAMPAIGN, HELD, EVERYWHERE = "campaign", "campaign_holdout", "global_holdout"
_COLUMNS = ("user_id", "reason", "send", "global_holdout", "at")
LATE = ("too_few_items", "history_too_long")  # reasons found after the deal


@dataclass(frozen=True, slots=True)
class Dealt:
    """People of a decided campaign.

    Attributes:
        rows: user_id, reason, send, global_holdout (whatever else holds), at (of the run).
        shares: of the campaign's holdout and of the global one, as planned.
    """

    rows: pl.DataFrame
    shares: dict[str, float]


def read_dealt(folder: Path) -> Dealt:
    """Return what `playbill campaign run` left in a folder, or in those of its waves.

    Raises:
        MeasureError: it is not decided.
    """
    of_waves = [
        p for p in sorted(folder.parent.glob(f"{folder.name}-wave*")) if p.name.rpartition("-wave")[2].isdigit()
    ]
    waves = [folder] if (folder / "plan.json").is_file() else of_waves
    if not waves:
        there = sorted(p.parent.name for p in folder.parent.glob("*/success.json"))
        raise MeasureError(f"{folder} holds no campaign; decided are: {', '.join(there) or 'none'}")
    for wave in waves:
        if not (wave / "success.json").is_file():
            raise MeasureError(f"{wave} is not decided to its end; run `playbill campaign run` again to go on")
    try:
        plan: dict[str, Any] = msgspec.json.decode((waves[0] / "plan.json").read_bytes())
        declared = plan["declaration"]["holdouts"]
        shares = {HELD: float(declared["campaign"]), EVERYWHERE: float(declared["everywhere"])}
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise MeasureError(f"{waves[0] / 'plan.json'} cannot be read ({type(error).__name__}: {error})") from error
    files = [part for wave in waves for part in sorted((wave / "rows").glob("part-*.parquet"))]
    return Dealt(pl.scan_parquet(files).select(_COLUMNS).collect(), shares)


def arms(dealt: Dealt, control: str) -> pl.DataFrame:
    """Return the people of a comparison: user_id, at, arm (CAMPAIGN or the control), share (planned, of their arm).

    Args:
        control: HELD or EVERYWHERE.
    """
    if control == EVERYWHERE:
        rows, held = dealt.rows, pl.col("global_holdout")
    else:
        rows = dealt.rows.filter(pl.col("reason").is_in(["", *LATE, HELD]))
        held = pl.col("reason") == HELD
    share = dealt.shares[control]
    return rows.select(
        "user_id",
        "at",
        arm=pl.when(held).then(pl.lit(control)).otherwise(pl.lit(CAMPAIGN)),
        share=pl.when(held).then(share).otherwise(1 - share),
    )
