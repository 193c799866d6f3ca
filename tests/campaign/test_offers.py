"""Offers: what a level is worth, reserves that hold, who may be told apart by what, one offer a person."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from playbill.campaign.offer_facts import Facts, FactSpec, check_inputs
from playbill.campaign.offer_run import decide_offers, keep, kept
from playbill.campaign.offer_settings import Guard, OfferLevel, Offers
from playbill.campaign.offers import About, OfferModel, of_classes, reserve, settle, worth
from playbill.campaign.settings import Block, Campaign
from playbill.errors import ConfigError, PlaybillError
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind, Provenance

LEVELS = [OfferLevel(name="gift", cost=1.0), OfferLevel(name="tenth", discount=0.1, most=3.0)]
PEOPLE = 1000


def tables(folder: Path) -> Path:
    """Tables of 1,000 people in two groups; `band` says which group, and `income` is what a model took them to have."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ids = np.arange(1, PEOPLE + 1)
    group = np.where(ids % 2 == 0, "a", "b")
    users = pa.table({
        "user_id": ids, "band": (ids % 2).astype(np.float64), "even": (ids % 7).astype(np.float64),
        "income": ids * 1.0, "group": group, "illness": group, "bought_in": ids * 1.0,
    })  # fmt: skip
    decisions = pa.table({
        "decision_id": ids, "request_id": ids, "kind": ["offer"] * PEOPLE, "chosen": ["none"] * PEOPLE,
        "at": pa.array([now] * PEOPLE, pa.timestamp("us", tz="UTC")), "user_id": ids,
        "propensity": np.full(PEOPLE, 0.5),
    })  # fmt: skip
    events = pa.table({
        "event_id": [1], "user_id": [1], "event": ["purchase"], "at": pa.array([now], pa.timestamp("us", tz="UTC")),
        "value": [3.0],
    })  # fmt: skip
    marks = {
        "income": {"provenance": Provenance.INFERRED}, "group": {"protected": True}, "illness": {"sensitive": True},
        "bought_in": {"provenance": Provenance.THIRD_PARTY},
    }  # fmt: skip
    whole = {"users": users, "events": events, "decisions": decisions}
    kinds = {"user_id": Kind.ID, "decision_id": Kind.ID, "request_id": Kind.ID, "event_id": Kind.ID, "at": Kind.TIME,
             "chosen": Kind.ID}  # fmt: skip

    def column(name: str, kind: pa.DataType) -> Column:
        is_ = kinds.get(name, Kind.NUMBER if pa.types.is_floating(kind) else Kind.TEXT)
        return Column(name=name, kind=is_, **marks.get(name, {}))  # type: ignore[arg-type]  # its own fields

    columns = {name: [column(f.name, f.type) for f in table.schema] for name, table in whole.items()}
    write_folder(folder, whole, source="test", columns=columns, events=[EventKind(name="purchase")], licence="none")
    return folder


def model(by: str) -> OfferModel:
    """A model by which people with a high value of one column buy more often with the gift."""
    spec = FactSpec(levels=["none", "gift", "tenth"], inputs=[by], words={}, events=[])
    arrays: dict[str, np.ndarray] = {"effects": np.array([False])}
    for k, high in enumerate((0.1, 0.6, 0.1)):
        tree = {"feature": [[0, -1, -1]], "threshold": [[0.5, 0, 0]], "left": [[1, 0, 0]], "right": [[2, 0, 0]],
                "value": [[0.0, 0.1, high]], "missing": [[True, False, False]]}  # fmt: skip
        arrays |= {f"{key}{k}": np.array(value) for key, value in tree.items()}
        arrays[f"start{k}"] = np.array([0.0])
    return OfferModel(About(spec=spec, form="trees", value=10.0, surer=1.0, judged={}), arrays)


def campaign(**offers: object) -> Campaign:
    told = Offers(**{"levels": LEVELS, "budget": 200.0, "explore": 0.0, **offers})  # type: ignore[arg-type]  # its fields
    return Campaign(name="spring", blocks=[Block(name="picks")], subjects="s.json", offers=told)


@pytest.mark.parametrize(
    ("column", "why"),
    [("income", "inferred"), ("group", "protected"), ("illness", "sensitive"), ("bought_in", "third-party"),
     ("user_id", "an id"), ("nothing", "no column")],
)  # fmt: skip
def test_no_offer_rests_on_what_may_not_be_asked(tmp_path: Path, column: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"{column}.*{why}|{why}.*{column}"):
        check_inputs(tables(tmp_path / "t"), ["even", column], "inputs")


def test_a_run_refuses_a_model_that_learned_from_what_is_inferred_now(tmp_path: Path) -> None:
    folder = tables(tmp_path / "t")
    with pytest.raises(ConfigError, match="income"):
        decide_offers(campaign(), model("income"), folder, pl.Series("user_id", range(1, PEOPLE + 1)), 2**60)


def test_offers_are_alike_again_and_within_the_budget_and_kept(tmp_path: Path) -> None:
    folder, ids = tables(tmp_path / "t"), pl.Series("user_id", range(1, PEOPLE + 1))
    first = decide_offers(campaign(explore=0.1), model("even"), folder, ids, 2**60)
    back = decide_offers(campaign(explore=0.1), model("even"), folder, ids, 2**60)
    assert first.table.equals(back.table)
    assert first.worst == pytest.approx(first.table["offer_cost"].sum())
    assert 150 < first.worst <= 200
    explored = first.table.filter(pl.col("offer_reason") == "explored")
    assert 50 < len(explored) < 160 and set(explored["offer"]) == {"none", "gift", "tenth"}
    assert first.table["offer_propensity"].min() == pytest.approx(0.1 / 3)
    keep(tmp_path, "run", first)
    found = kept(tmp_path, "run")
    assert found is not None and found.equals(first.table)
    assert kept(tmp_path, "another") is None


def test_offers_that_follow_a_protected_group_are_not_released(tmp_path: Path) -> None:
    folder, ids = tables(tmp_path / "t"), pl.Series("user_id", range(1, PEOPLE + 1))
    with pytest.raises(PlaybillError, match="unequally often.*group="):
        decide_offers(campaign(), model("band"), folder, ids, 2**60)
    told = decide_offers(campaign(release_unequal=True), model("band"), folder, ids, 2**60)
    assert told.flagged and told.worst <= 200


def test_a_level_is_worth_what_is_left_of_what_is_bought() -> None:
    found = worth(np.array([[0.1, 0.3, 0.2]]), 10.0, Offers(levels=LEVELS, margin=0.5), ["none", "gift", "tenth"])
    assert found.profit[0] == pytest.approx([0.5, 1.5 - 1.0, 1.0 - 0.2])
    assert found.expected[0] == pytest.approx([0.0, 1.0, 0.2])
    assert found.worst[0] == pytest.approx([0.0, 1.0, 3.0])
    with pytest.raises(ConfigError, match="gift"):
        worth(np.array([[0.1, 0.2]]), 10.0, Offers(levels=LEVELS), ["none", "tenth"])


@pytest.mark.parametrize("guard", list(Guard))
def test_no_budget_is_passed_when_people_redeem_as_they_were_expected_to(guard: Guard) -> None:
    draw = np.random.default_rng(0)
    offers = Offers(levels=[OfferLevel(name="tenth", discount=0.1, most=3.0)], budget=300.0, guard=guard, explore=0.0)
    chance = np.clip(draw.beta(1, 6, 5000), 0.01, 0.9)
    chances = np.stack([chance * 0.3, chance], 1)
    of = worth(chances, 25.0, offers, ["none", "tenth"])
    level, propensity, _ = settle(offers, of, 1.0, np.ones((5000, 2)))
    assert (propensity == 1).all() and level.any()
    for _ in range(1000):
        assert ((draw.random(5000) < chance) & (level == 1)).sum() * 2.5 <= 300.0


def test_a_reserve_is_more_than_what_is_expected_and_less_than_the_worst() -> None:
    expected, worst = np.full(5000, 0.1), np.full(5000, 2.0)
    assert expected.sum() < reserve(expected, worst, 1e-6) < worst.sum()
    assert reserve(expected, worst, 1e-9) > reserve(expected, worst, 1e-3)


def test_kinds_of_people_are_told_by_what_they_did() -> None:
    arrays = {"rate": np.array([[0.01, 0.2, 0.01], [0.3, 0.3, 0.3]]), "share": np.array([0.5, 0.5]),
              "opening": np.array([1.0, 1.0])}  # fmt: skip
    made = np.array([[20, 20, 0], [20, 20, 0], [0, 0, 0]])
    taken = np.array([[0, 5, 0], [6, 6, 0], [0, 0, 0]])
    found = of_classes(arrays, Facts(np.zeros((3, 0)), made, taken))
    assert found[0, 1] - found[0, 0] > 0.15 and abs(found[1, 1] - found[1, 0]) < 0.02
    # of whom nothing is known: both kinds alike, and every second offer is seen
    assert found[2] == pytest.approx([0.155, 0.5 * 0.25 + 0.5 * 0.155])


def test_a_declaration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of them 'none'"):
        Offers(levels=[OfferLevel(name="none")])
    with pytest.raises(ConfigError, match="needs `most`"):
        Offers(levels=[OfferLevel(name="x", discount=0.1)])
    with pytest.raises(ConfigError, match="least_margin"):
        Offers(margin=0.3, least_margin=0.5)
    offers = Offers(levels=LEVELS, budget=1.0, explore=1.0)
    of = worth(np.full((100, 3), 0.1), 10.0, offers, ["none", "gift", "tenth"])
    with pytest.raises(ConfigError, match=r"lower offers\.explore"):
        settle(offers, of, 1.0, np.full((100, 2), 0.5))
