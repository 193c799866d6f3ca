"""Open Bandit, random -> Bernoulli-TS: the published figure, and intervals that hold what the target really brought."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from open_bandit import CAMPAIGNS, on_policy_value, open_bandit_log, write_open_bandit

from playbill import cli
from playbill.measure.off_policy.estimators import dm, dr, ips, snips
from playbill.measure.off_policy.intervals import bootstrap_intervals, value_bound
from playbill.measure.off_policy.overlap import overlap
from playbill.measure.off_policy.reward_model import Logistic, cross_fit

# the authors print 0.0042, 0.0069 and 0.0046 for what Bernoulli-TS brought in its own 10,000 impressions
ON_POLICY = {"all": 0.0042, "men": 0.0069, "women": 0.0046}


def test_the_published_value_of_campaign_all(shared_data: Path) -> None:
    log = open_bandit_log(shared_data, "all")
    value, low, high = on_policy_value(shared_data, "all")
    estimate = ips(log).estimate()
    assert value == 0.0042
    assert round(estimate, 6) == 0.004553
    assert round(abs(estimate - value) / value, 4) == 0.0840
    assert round(snips(log).estimate(), 6) == 0.004776
    # 42 clicks: the value that estimates are held against is itself known to a third only
    assert (low, high) == pytest.approx((0.00303, 0.00567), abs=1e-5)


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_the_on_policy_value_lies_in_the_intervals(shared_data: Path, campaign: str) -> None:
    """DM misses it in all three: no interval over rounds knows how wrong a model is."""
    log = open_bandit_log(shared_data, campaign)
    value, _, _ = on_policy_value(shared_data, campaign)
    assert value == ON_POLICY[campaign]
    assert log.unit is not None and log.choices is not None
    prediction = cross_fit(log, lambda: Logistic(int(log.action.max()) + 1))
    several = [ips(log), snips(log), dr(log, prediction), dm(prediction)]
    found = bootstrap_intervals(several, log.unit, resamples=1000)
    held = {one.name: i.low <= value <= i.high for one, i in zip(several, found, strict=True)}
    assert held == {"IPS": True, "SNIPS": True, "DR": True, "DM": False}
    bound = value_bound(log, most=1)  # each impression stands alone
    assert bound.low <= value <= bound.high < 0.02
    covers = overlap(log, resamples=500)
    assert not covers.refused and covers.unsupported_mass == 0.0
    # 10,000 impressions are worth 1,640 to 2,467 of equal weight
    assert 1600 < covers.effective_rounds < 2500


def test_the_command_gives_the_same_from_tables(shared_data: Path, tmp_path: Path) -> None:
    target = write_open_bandit(shared_data, "all", tmp_path / "tables" / "open-bandit-all")
    arguments = ["measure", "question=off_policy", "tables=open-bandit-all", f"home={tmp_path}", "question.within_h=0"]
    arguments += [f"question.target={target}", "question.resamples=300", "question.model=MEANS"]
    arguments += ["question.most_decisions_per_unit=1"]
    assert cli.main(arguments) == 0
    folder = tmp_path / "measure" / "open-bandit-all-off_policy"
    reading = json.loads((folder / "reading.json").read_bytes())
    found = {s["name"]: s for s in reading["statements"]}
    assert round(found["value of bts_all, IPS"]["estimate"], 6) == 0.004553
    assert round(found["value of the logging policy"]["estimate"], 6) == 0.0038
    log = open_bandit_log(shared_data, "all")
    assert found["value of bts_all, SNIPS"]["estimate"] == pytest.approx(snips(log).estimate(), rel=1e-12)
    assert all(s["refused"] == "" for s in found.values())
    assert "cannot tell them apart" in reading["verdict"]
    assert any("a single round carries 43% of the weighted reward" in w for w in reading["warnings"])
    rows = {row["figure"]: row["value"] for row in reading["tables"]["overlap"]}
    assert rows["rounds"] == 10_000 and rows["mean weight"] == pytest.approx(np.mean(log.weight()))
    assert (folder / "reading.txt").stat().st_size and (folder / "reading.png").stat().st_size
