"""How often a campaign's report is right: many campaigns whose truth is known, half of them without any effect.

    python tests/benchmarks/proof_campaign_report.py [campaigns=400] [people=6000]

People who gave no consent buy less anyway; a message adds to what its receivers buy, or nothing. Of every campaign the
report's interval, by the intention to treat, is held against the truth; beside it stands what receivers against all
others would have said.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "measure"))

from record import machine, record
from test_campaign_report import HELD, PEOPLE, make_shop

from playbill.measure.campaigns.dealt import arms, read_dealt
from playbill.measure.campaigns.report import compare
from playbill.measure.campaigns.settings import CampaignReportSettings


def main(arguments: list[str]) -> int:
    """Simulate, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    started, campaigns = machine(), int(given.get("campaigns", 400))
    people = int(given.get("people", PEOPLE))
    found: dict[float, list[tuple[bool, bool, float, float]]] = {0.0: [], 0.05: []}
    for number in track(range(campaigns), "campaigns"):
        effect = 0.05 * (number % 2)
        with tempfile.TemporaryDirectory() as scratch:
            found[effect].append(_one(Path(scratch), number, effect, people))
    figures: dict[str, Any] = {"campaigns": campaigns, "people": people, "level": 0.95}
    for effect, rows in found.items():
        covered, significant, error, naive = (np.asarray(column) for column in zip(*rows, strict=True))
        figures[f"effect_{effect:g}"] = {
            "campaigns": len(rows),
            "covered": float(covered.mean()),
            "called_found": float(significant.mean()),
            "mean_error": float(error.mean()),
            "mean_error_of_receivers_against_others": float(naive.mean()),
        }
        print(f"effect {effect:g}: {figures[f'effect_{effect:g}']}")
    print(f"written to {record('campaign-report', figures, started)}")
    return 0


def _one(home: Path, seed: int, effect: float, people: int) -> tuple[bool, bool, float, float]:
    """Return whether the truth is in the interval, whether zero is not, and the errors of the report and of naive."""
    make_shop(home, seed=seed, effect=effect, people=people)
    settings = CampaignReportSettings(home=str(home), name="spring", tables="shop", pre_days=0)
    reading = compare(settings, home / "tables" / "shop", arms(read_dealt(home / "campaigns/spring"), HELD), HELD)
    [buyers] = [s for s in reading.statements if s.name.startswith("buyers")]
    assert buyers.estimate is not None and buyers.low is not None and buyers.high is not None
    truth = effect * 0.98  # two of a hundred who were dealt a message get none
    rows = pl.read_parquet(home / "campaigns/spring/rows/*.parquet")
    bought = pl.read_parquet(home / "tables/shop/events.parquet").filter(pl.col("event") == "purchase")["user_id"]
    rate = dict(rows.group_by("send").agg(pl.col("user_id").is_in(bought.implode()).mean()).iter_rows())
    covered, apart = buyers.low <= truth <= buyers.high, not buyers.low <= 0 <= buyers.high
    return covered, apart, buyers.estimate - truth, rate[True] - rate[False] - effect


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
