"""When a bundle that is tried is taken on or sent back, by tallies made by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.release import trial as trials
from playbill.release.publication import RECORD
from playbill.release.trial import Mode, Tallies, Tally, Trial, decide, judge, overlap, together

TRIAL = Trial(version="new", previous="old", least=200, started="2026-01-01T00:00:00+00:00")


def tally(answers: int = 1000, ms: float = 2.0, failed: int = 0, lower: int = 0, shared: float = 0.8) -> Tally:
    made = Tally()
    for n in range(answers):
        made.answered(n >= lower, ms * (1 + n % 100 / 100))
    made.failed, made.compared, made.shared = failed, answers // 5, shared * (answers // 5)
    return made


@pytest.mark.parametrize(
    ("new", "verdict", "said"),
    [
        (tally(), True, "80 % of the first ten places in common"),
        (tally(failed=50), False, "failed"),
        (tally(failed=5), True, ""),  # half a per cent of 1,000: within what is allowed
        (tally(lower=200), False, "stood on a lower rung"),
        (tally(ms=4.0), False, "95 % of its answers took up to"),
        (tally(ms=2.5), True, ""),
        (tally(shared=0.1), False, "10 % of its first ten places"),
        (tally(answers=100), None, ""),
        (tally(answers=40, failed=20), False, "failed"),  # sure enough before there are enough answers
        (Tally(unloadable="a byte differs"), False, "could not be loaded: a byte differs"),
    ],
)
def test_a_bundle_is_judged_by_failures_rungs_latency_and_agreement(
    new: Tally, verdict: bool | None, said: str
) -> None:
    judged = judge(TRIAL, Tallies(used=tally(), new=new), minutes=1.0)
    assert (None if judged is None else judged[0]) is verdict
    assert judged is None or said in judged[1]


def test_what_is_not_asked_enough_is_sent_back_when_its_time_is_up() -> None:
    judged = judge(TRIAL, Tallies(used=tally(), new=tally(answers=100)), minutes=61.0)
    assert judged is not None and not judged[0] and "100 answers in 61 minutes, 200 are needed" in judged[1]


def test_a_bundle_in_use_that_stands_low_itself_is_the_measure() -> None:
    both = Tallies(used=tally(lower=300), new=tally(lower=300))
    judged = judge(TRIAL, both, minutes=1.0)
    assert judged is not None and judged[0]


def test_percentiles_of_a_tally_are_within_a_bucket() -> None:
    dice = np.random.default_rng(0).lognormal(1.0, 0.7, 5000)
    made = Tally()
    for ms in dice.tolist():
        made.answered(True, ms)
    for share in (0.5, 0.95, 0.99):
        assert made.percentile_ms(share) == pytest.approx(float(np.quantile(dice, share)), rel=0.11)
    two = together([Tallies(new=made), Tallies(new=made)])
    assert two.new.answers == 10_000 and two.new.percentile_ms(0.95) == made.percentile_ms(0.95)


def test_the_same_people_are_taken_each_time_and_as_many_as_asked() -> None:
    trial = msgspec.structs.replace(TRIAL, share=0.25)
    taken = [trial.takes(str(n)) for n in range(4000)]
    assert abs(np.mean(taken) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert taken == [trial.takes(str(n)) for n in range(4000)]
    other = msgspec.structs.replace(trial, started="2026-01-02T00:00:00+00:00")
    assert [other.takes(str(n)) for n in range(4000)] != taken  # another trial asks others


def test_of_many_processes_one_decides(tmp_path: Path) -> None:
    """Half say yes and half no, at once: one verdict stands, and the record has one line."""
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda n: decide(tmp_path, TRIAL, False, f"by {n}", Tallies()), range(16)))
    assert len({v.why for v in verdicts}) == 1
    assert len((tmp_path / RECORD).read_text().splitlines()) == 1
    assert not list(trials.folder_of(tmp_path, TRIAL).glob(".*"))


def test_overlap_is_that_of_the_first_places() -> None:
    assert overlap([1, 2, 3], [3, 2, 9]) == pytest.approx(2 / 3) and overlap([], []) is None
    assert overlap(list(range(20)), list(range(10, 30))) == 0.0


def test_modes_have_the_names_of_the_setting() -> None:
    assert [mode.value for mode in Mode] == ["canary", "shadow"]
