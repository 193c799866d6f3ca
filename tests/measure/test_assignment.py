"""Assignment: one by one and in bulk alike, even, independent, exclusive where it must be, and stable under growth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import MeasureError
from playbill.measure.assignment import (
    BUCKETS,
    Experiment,
    Layer,
    Plan,
    Slot,
    assign,
    bucket_of,
    hash_id,
    layer,
    mix64,
    slots,
)
from playbill.measure.assignment_rows import (
    arm_names,
    arms_of,
    buckets,
    decision_rows,
    hash_ids,
    planned_shares,
)
from playbill.measure.sample_ratio import sample_ratio

FEW = settings(max_examples=40, deadline=None)
HALVES = {"control": 0.5, "new": 0.5}


def one_experiment(name: str = "button", shares: dict[str, float] | None = None, holdout: float = 0.0) -> Plan:
    """A plan of one experiment that has a layer for itself."""
    return Plan(layers=(layer(name, {name: shares or HALVES}),), holdout=holdout)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to three layers of up to three experiments of up to four arms, some people in none of them."""

    def shares(names: list[str]) -> dict[str, float]:
        weights = draw(st.lists(st.integers(1, 100), min_size=len(names), max_size=len(names)))
        rest = draw(st.integers(0, 100))
        return {name: w / (sum(weights) + rest) for name, w in zip(names, weights, strict=True)}

    parts = []
    for i in range(draw(st.integers(1, 3))):
        names = [f"e{i}{j}" for j in range(draw(st.integers(1, 3)))]
        arms = {name: shares([f"arm {k}" for k in range(draw(st.integers(1, 4)))]) for name in names}
        parts.append(layer(f"l{i}", arms, shares(names)))
    return Plan(layers=tuple(parts), holdout=draw(st.sampled_from([0.0, 0.1, 1.0])))


@FEW
@given(
    ids=st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True),
        st.lists(st.text(st.characters(codec="utf-8")), min_size=1, unique=True),
    ),
    plan=plans(),
)
def test_one_by_one_and_in_bulk_are_equal_bit_for_bit(ids: list[int] | list[str], plan: Plan) -> None:
    hashes = hash_ids(ids)
    assert hashes.tolist() == [hash_id(i) for i in ids]
    assert buckets(hashes, "a salt").tolist() == [bucket_of(hash_id(i), "a salt") for i in ids]
    for part in plan.layers:
        for e in part.experiments:
            names = arm_names(plan, e.name)
            bulk = [None if a < 0 else names[a] for a in arms_of(plan, e.name, hashes)]
            assert bulk == [assign(plan, i).get(e.name) for i in ids]


def test_the_documented_hash_has_not_changed() -> None:
    """Stored assignments rest on these numbers: the first two are those of the published splitmix64 from seed 0."""
    assert hash_id(0) == mix64(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    assert mix64(2 * 0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
    assert (hash_id(""), hash_id("visitor-1")) == (0xB4B2797457A0A6E4, 0x2751F0FA398B26BB)
    assert (bucket_of(hash_id(7), "button"), bucket_of(hash_id("visitor-1"), "button")) == (602_015, 647_990)
    assert assign(one_experiment(), 7) == assign(one_experiment(), np.int64(7))


def test_a_string_is_not_the_number_it_spells() -> None:
    assert hash_id("7") != hash_id(7)


def test_a_server_can_decide_without_numpy() -> None:
    code = (
        "import sys; from playbill.measure.assignment import Plan, assign, layer;"
        "assign(Plan(layers=(layer('l', {'e': {'a': 1}}),)), 'u');"
        "print([m for m in ('numpy', 'scipy', 'polars', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("ids", [np.arange(100_000), [f"visitor-{i}" for i in range(100_000)]])
def test_arms_get_their_shares(ids: np.ndarray | list[str]) -> None:
    shares = {"control": 0.5, "a": 0.3, "b": 0.15}  # and one in twenty in none
    plan = one_experiment(shares=shares, holdout=0.1)
    arm = arms_of(plan, "button", hash_ids(ids))
    counts = [int((arm == i).sum()) for i in range(-1, 3)]
    assert arm_names(plan, "button") == list(shares)
    assert sample_ratio(counts, [0.1 + 0.9 * 0.05, 0.9 * 0.5, 0.9 * 0.3, 0.9 * 0.15]).p_value > 0.001
    assert planned_shares(plan, "button") == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95])


def test_many_experiments_are_not_correlated() -> None:
    """Twin of proof_experiments.py (1,000 experiments, 10^6 people): ids in a row, the worst case for a weak hash."""
    people, experiments = 100_000, 60
    plan = Plan(layers=tuple(layer(f"e{i}", {f"e{i}": HALVES}) for i in range(experiments)))
    hashes = hash_ids(np.arange(people))
    sides = np.stack([arms_of(plan, f"e{i}", hashes) for i in range(experiments)]).astype(np.float32) * 2 - 1
    correlation = np.corrcoef(sides)
    off = np.abs(correlation[np.triu_indices(experiments, 1)])
    # 1,770 pairs of independent coins: the largest is 3.5 / sqrt(people) or so, 5 would be one in 1,000 runs
    assert off.max() < 5 / np.sqrt(people)
    assert np.sqrt((off**2).mean()) == pytest.approx(1 / np.sqrt(people), rel=0.1)
    # neighbours in a row of ids neither: each person's arm against the next one's
    assert np.abs((sides[:, 1:] * sides[:, :-1]).mean(1)).max() < 5 / np.sqrt(people)


def test_experiments_of_a_layer_never_meet_and_layers_are_independent() -> None:
    plan = Plan(layers=(layer("page", {"a": HALVES, "b": HALVES}, {"a": 0.4, "b": 0.6}), layer("mail", {"c": HALVES})))
    hashes = hash_ids(np.arange(100_000))
    a, b, c = (arms_of(plan, name, hashes) for name in "abc")
    assert not ((a >= 0) & (b >= 0)).any() and ((a >= 0) | (b >= 0)).all()
    both = [int(((a == i) & (c == j)).sum()) for i in (0, 1) for j in (0, 1)]
    assert sample_ratio(both, [1, 1, 1, 1]).p_value > 0.001
    # an experiment that takes over another's people deals them anew: no arm inherits the last one's
    after = Plan(layers=(layer("page", {"d": HALVES}),))
    d = arms_of(after, "d", hashes)
    again = [int(((a == i) & (d == j)).sum()) for i in (0, 1) for j in (0, 1)]
    assert sample_ratio(again, [1, 1, 1, 1]).p_value > 0.001


def test_no_experiment_touches_the_holdout_and_it_only_grows() -> None:
    ids = range(2000)
    small, large = (Plan(layers=one_experiment().layers, holdout=h) for h in (0.05, 0.2))
    out_small, out_large = ({i for i in ids if not assign(p, i)} for p in (small, large))
    assert out_small < out_large
    assert abs(len(out_small) - 100) < 4 * 10 and abs(len(out_large) - 400) < 4 * 18
    kept = [i for i in ids if i not in out_large]
    assert [assign(small, i) for i in kept] == [assign(large, i) for i in kept]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_who_is_in_an_arm_stays_in_while_its_share_does_not_fall(data: st.DataObject) -> None:
    names = ["a", "b", "c", "d"]
    owned: tuple[Slot, ...] = ()
    earlier: dict[str, np.ndarray] = {}
    widths: dict[str, int] = {}
    for _ in range(4):
        weights = data.draw(st.lists(st.integers(0, 50), min_size=4, max_size=4))
        total = max(1, sum(weights) + data.draw(st.integers(0, 50)))
        shares = {name: w / total for name, w in zip(names, weights, strict=True)}
        owned = slots(shares, owned)
        line = np.zeros(BUCKETS, np.int8)
        for slot in owned:
            assert (line[slot.low : slot.high] == 0).all(), "slots overlap"
            line[slot.low : slot.high] = names.index(slot.name) + 1
        for i, name in enumerate(names):
            mine = line == i + 1
            assert mine.sum() == int(shares[name] * BUCKETS + 1e-6)
            if name in earlier:
                moved = earlier[name] & ~mine
                assert moved.sum() == max(0, widths[name] - mine.sum()), name
            earlier[name], widths[name] = mine, int(mine.sum())


def test_growth_through_a_plan_keeps_people() -> None:
    first = slots({"control": 0.05, "new": 0.05})
    then = slots({"control": 0.05, "new": 0.4, "third": 0.2}, first)
    plans = [
        Plan(layers=(Layer(name="l", traffic=slots({"e": 1}), experiments=(Experiment(name="e", arms=arms),)),))
        for arms in (first, then)
    ]
    before, after = ([assign(p, i).get("e") for i in range(5000)] for p in plans)
    assert [b for a, b in zip(before, after, strict=True) if a] == [a for a in before if a]
    assert after.count("new") > 1800 and after.count("third") > 850


def test_a_plan_survives_json() -> None:
    plan = Plan(layers=(layer("l", {"e": {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}}),), holdout=0.02)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_rows_of_decisions(tmp_path: Path) -> None:
    from playbill.measure.experiments.assignment import read_assignment
    from playbill.measure.experiments.settings import ExperimentQuestion
    from playbill.tables.folder import write_folder
    from playbill.tables.schema import CONTRACT

    plan = one_experiment(shares={"control": 0.6, "new": 0.2}, holdout=0.1)
    ids = np.arange(1, 1001)
    rows = decision_rows(plan, "button", ids, np.datetime64("2026-03-01T12:00:00"))
    known = {c.name: c for c in CONTRACT["decisions"]}
    write_folder(
        tmp_path, {"decisions": rows}, source="test", columns={"decisions": [known[n] for n in rows.column_names]}
    )
    read = read_assignment(tmp_path, ExperimentQuestion(experiment="button"))
    assert dict(zip(read.ids, (read.arms[a] for a in read.arm), strict=True)) == {
        int(i): assign(plan, int(i))["button"] for i in ids if assign(plan, int(i))
    }
    assert read.shares == pytest.approx([0.75, 0.25])
    again = decision_rows(
        plan, "button", pa.chunked_array([ids[:400], ids[400:]]), np.datetime64("2026-03-01T12:00:00")
    )
    assert again == rows
    assert rows["decision_id"][0].as_py() == f"button/{rows['user_id'][0]}"


@pytest.mark.parametrize("ids", [[1, 2, 1], ["x", "y", "x"]])
def test_nobody_is_assigned_twice(ids: list[int] | list[str]) -> None:
    with pytest.raises(MeasureError, match="user_id: 1 people stand in the list more than once"):
        decision_rows(one_experiment(), "button", ids, np.datetime64("2026-03-01"))


def test_bad_ids_are_refused() -> None:
    for ids in ([1.5, 2.0], [1, "a"], [True], [2**63], pa.array([1], pa.uint64())):
        with pytest.raises(MeasureError, match="int64"):
            hash_ids(ids)
    for ids, rows in (([1, None], r"\[1\]"), (["a", None, None], r"\[1, 2\]")):
        with pytest.raises(MeasureError, match=f"are missing, first in rows {rows}"):
            hash_ids(ids)
    for one in (1.0, None, True, 2**63, b"x"):
        with pytest.raises(MeasureError, match="a string or a whole number of 64 bits"):
            hash_id(one)


def test_bad_plans_are_refused() -> None:
    arms = slots(HALVES)
    e, whole = Experiment(name="e", arms=arms), slots({"e": 1})
    part = Layer(name="l", traffic=whole, experiments=(e,))
    for given_layers, says in (
        ((part, part), r"layer \['l'\]"),
        ((part, Layer(name="m", traffic=whole, experiments=(e,))), r"experiment \['e'\]"),
        (
            (Layer(name="l", traffic=whole, experiments=(e, Experiment(name="f", arms=arms, salt="e"))),),
            r"salt \['e'\]",
        ),
        ((Layer(name="l", traffic=slots({"g": 1}), experiments=(e,)),), r"traffic for \['g'\]"),
        ((Layer(name="l", traffic=(Slot("e", 0, 2), Slot("e", 1, 3)), experiments=(e,)),), "overlaps"),
        ((Layer(name="l", traffic=(Slot("e", 0, BUCKETS + 1),), experiments=(e,)),), "leaves 0..1000000"),
    ):
        with pytest.raises(MeasureError, match=says):
            Plan(layers=given_layers)
    with pytest.raises(MeasureError, match="holdout must lie"):
        Plan(holdout=1.5)
    for shares, says in (
        ({"a": 0.6, "b": 0.5}, "add up to 1.1"),
        ({"a": -0.1}, r"in 0\.\.1"),
        ({}, "by name"),
        ({"a": float("nan")}, r"in 0\.\.1"),
    ):
        with pytest.raises(MeasureError, match=says):
            slots(shares)
    with pytest.raises(MeasureError, match="no experiment 'buton'; nearest is 'button'"):
        arms_of(one_experiment(), "buton", hash_ids([1]))
