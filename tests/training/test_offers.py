"""`playbill train-offers`: trees that numpy evaluates as LightGBM does, kinds of people that are found, files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("lightgbm")

from lightgbm import LGBMRegressor
from scipy.special import expit, logsumexp

from playbill.campaign.offer_facts import Facts
from playbill.campaign.offer_settings import OfferLevel, Offers
from playbill.campaign.offers import grown, of_classes, read
from playbill.errors import ConfigError, TrainingError
from playbill.measure.bootstrap import Interval
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind
from playbill.training.campaign.offer_judge import Judged
from playbill.training.campaign.offer_kinds import inclined_kinds
from playbill.training.campaign.offer_learners import _ensemble, kinds_of_people
from playbill.training.campaign.offer_settings import OfferModelSettings
from playbill.training.campaign.offers import run


@pytest.mark.parametrize("missing", [False, True])
def test_numpy_says_what_lightgbm_says(missing: bool) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3000, 4))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * (x[:, 2] > 0)
    if missing:
        x[draw.random(x.shape) < 0.2] = np.nan
    model = LGBMRegressor(n_estimators=20, num_leaves=8, verbose=-1, n_jobs=1).fit(x, y)
    arrays = _ensemble(model.booster_.dump_model()["tree_info"], "1", 0.0)
    other = draw.normal(size=(500, 4))
    other[::3, 0] = np.nan  # of a column that was never missing as well
    assert grown(arrays, "1", other) == pytest.approx(np.asarray(model.predict(other)), abs=1e-9)


def test_kinds_of_people_are_found() -> None:
    draw = np.random.default_rng(1)
    moved = draw.random(3000) < 0.4
    made = draw.integers(20, 40, (3000, 3))
    rate = np.where(moved[:, None], [0.05, 0.3, 0.05], [0.05, 0.05, 0.05])
    found = kinds_of_people(made, draw.binomial(made, rate), 8, 0)
    assert found["share"].sum() == pytest.approx(1)
    moving = found["rate"][:, 1] > 0.2
    assert found["share"][moving].sum() == pytest.approx(0.4, abs=0.05)
    opening = found["opening"]
    assert opening[0] / opening.sum() == pytest.approx(made[:, :2].sum() / made.sum(), abs=0.02)


def told(kinds: dict[str, np.ndarray], made: np.ndarray, taken: np.ndarray) -> float:
    """Mean log-likelihood of a person's purchases."""
    log = taken @ np.log(kinds["rate"]).T + (made - taken) @ np.log1p(-kinds["rate"]).T
    return float(logsumexp(log + np.log(kinds["share"]), axis=1).mean())


def test_kinds_with_an_inclination_need_fewer_people() -> None:
    draw = np.random.default_rng(3)
    made = draw.integers(20, 60, (2400, 5))
    answers = np.where(draw.random(2400) < 0.4, 1.6, -0.4)
    odds = -3.5 + draw.normal(0, 1, 2400)[:, None] + answers[:, None] * np.array([0, 0.4, 0.7, 1, 0])
    rate = expit(odds)
    taken = draw.binomial(made, rate)
    some, others = slice(0, 1200), slice(1200, None)
    mine = inclined_kinds(made[some], taken[some], 5, 0)
    assert mine["share"].sum() == pytest.approx(1)
    free = kinds_of_people(made[some], taken[some], 16, 0)
    assert told(mine, made[others], taken[others]) > told(free, made[others], taken[others])
    off = []
    for kinds in (mine, free):
        said = of_classes(kinds, Facts(np.zeros((1200, 0)), made[others], taken[others]))
        off.append(float(((said[:, 3] - said[:, 0] - rate[others, 3] + rate[others, 0]) ** 2).mean()))
    assert off[0] < 0.9 * off[1]


@pytest.mark.parametrize(
    ("gains", "chosen"), [((-1.0, 1.0), "tells best"), ((0.5, 1.0), "earns more"), ((-1.0, -0.5), "tells best")]
)
def test_chances_are_chosen_unless_a_plan_surely_earns_less(gains: tuple[float, float], chosen: str) -> None:
    zero = Interval(value=0.0, low=0.0, high=0.0)
    better = {
        ("earns more", "tells best"): Interval(value=0.0, low=gains[0], high=gains[1]),
        ("earns more", "nobody"): zero,
        ("tells best", "nobody"): zero,
    }
    told = {"earns more": -1.1, "tells best": -1.0}
    assert Judged({}, {}, better, told, {}).chosen() == chosen


def trial(home: Path, people: int = 4000) -> None:
    """Tables of a trial: people with x = 1 buy because of the gift, the others do not."""
    draw = np.random.default_rng(2)
    ids, began = np.arange(1, people + 1), datetime(2026, 1, 1, tzinfo=UTC)
    x, gift = draw.integers(0, 2, people), draw.integers(0, 2, people)
    bought = np.flatnonzero(draw.random(people) < np.where((x == 1) & (gift == 1), 0.5, 0.1))
    at = pa.timestamp("us", tz="UTC")
    users = pa.table({"user_id": ids, "x": x * 1.0, "guess": draw.normal(size=people)})
    decisions = pa.table({
        "decision_id": ids, "request_id": ids, "kind": ["offer"] * people,
        "chosen": np.where(gift == 1, "gift", "none"), "at": pa.array([began] * people, at), "user_id": ids,
        "propensity": np.full(people, 0.5),
    })  # fmt: skip
    events = pa.table({
        "event_id": np.arange(1, len(bought) + 1), "user_id": ids[bought], "event": ["purchase"] * len(bought),
        "at": pa.array([began + timedelta(hours=5)] * len(bought), at), "value": np.full(len(bought), 10.0),
    })  # fmt: skip
    whole = {"users": users, "events": events, "decisions": decisions}

    def column(field: pa.Field) -> Column:
        kind = Kind.ID if field.name.endswith("_id") or field.name == "chosen" else Kind.TEXT
        kind = Kind.TIME if field.name == "at" else Kind.NUMBER if pa.types.is_floating(field.type) else kind
        return Column(name=field.name, kind=kind, protected=field.name == "guess")

    columns = {name: [column(f) for f in table.schema] for name, table in whole.items()}
    events_of = [EventKind(name="purchase")]
    write_folder(home / "tables" / "trial", whole, source="test", columns=columns, events=events_of, licence="none")


def settings(home: Path, **more: object) -> OfferModelSettings:
    offers = Offers(levels=[OfferLevel(name="gift", cost=2.0)], budget=4000.0)
    told = {"inputs": ["x"], "trees": 30, **more}
    return OfferModelSettings(home=str(home), tables="trial", offers=offers, **told)  # type: ignore[arg-type]  # fields


def test_a_trial_becomes_a_model_that_tells_people_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial(tmp_path)
    assert run(settings(tmp_path)) == 0
    folder = tmp_path / "runs" / "trial-offers"
    model = read(folder)
    assert model is not None and model.about.form == "trees" and model.about.value == 10.0
    assert model.about.judged["trees by level"] > model.about.judged["average"]
    facts_x = np.array([[1.0] + [0.0] * 8, [0.0] + [0.0] * 8])
    chances = model.chances(Facts(facts_x, np.zeros((2, 3), int), np.zeros((2, 3), int)))
    assert chances[0, 1] - chances[0, 0] == pytest.approx(0.4, abs=0.08)
    assert chances[1, 1] - chances[1, 0] == pytest.approx(0.0, abs=0.08)
    capsys.readouterr()
    assert run(settings(tmp_path)) == 0
    assert "is up to date" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    trial(tmp_path, 200)
    with pytest.raises(ConfigError, match="guess.*protected"):
        run(settings(tmp_path, inputs=["x", "guess"]))
    with pytest.raises(TrainingError, match="offers by level"):
        run(settings(tmp_path, kind="subject"))
    assert not (tmp_path / "runs").exists()
