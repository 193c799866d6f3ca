"""Who was dealt to a campaign and who was held out, as the arms of an experiment.

Two questions have two controls. Whoever the campaign's own holdout left out shows what this campaign did beside
everything else that went on; whoever the global holdout leaves out of all campaigns shows what they do together.
People who are held back for a reason that stood before the deal (consent, caps, quiet hours) are in neither arm: they
would have been held back in any. Those found only when their items were chosen were dealt, and count as sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from playbill.errors import MeasureError

CAMPAIGN, HELD, EVERYWHERE = "campaign", "campaign_holdout", "global_holdout"
LATE = ("too_few_items", "history_too_long")  # reasons found after the deal


@dataclass(frozen=True, slots=True)
class Dealt:
    """People of a decided campaign.

    Attributes:
        rows: user_id, reason, send, at (of the run).
        shares: of the campaign's holdout and of the global one, as planned.
    """

    rows: pl.DataFrame
    shares: dict[str, float]


def read_dealt(folder: Path) -> Dealt:
    """Return what `playbill campaign run` left in a folder, or in those of its waves.

    Raises:
        MeasureError: it is not decided.
    """
    waves = [folder] if (folder / "plan.json").is_file() else sorted(folder.parent.glob(f"{folder.name}-wave??"))
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
    return Dealt(pl.scan_parquet(files).select("user_id", "reason", "send", "at").collect(), shares)


def arms(dealt: Dealt, control: str) -> pl.DataFrame:
    """Return the people of a comparison: user_id, at, arm (CAMPAIGN or the control), share (planned, of their arm).

    Args:
        control: HELD or EVERYWHERE.
    """
    reason = pl.col("reason")
    sent = reason.is_in(["", *LATE])
    held, everywhere = dealt.shares[HELD], dealt.shares[EVERYWHERE]
    if control == HELD:
        share = held
    else:  # of all, before the campaign's own deal
        share = everywhere / (everywhere + (1 - everywhere) * (1 - held))
    return dealt.rows.filter(sent | (reason == control)).select(
        "user_id",
        "at",
        arm=pl.when(reason == control).then(pl.lit(control)).otherwise(pl.lit(CAMPAIGN)),
        share=pl.when(reason == control).then(share).otherwise(1 - share),
    )
