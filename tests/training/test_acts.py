"""`playbill train-acts` and `playbill campaign audience` on a simulated service: later moments judge, the truth too."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from playbill.campaign.act_features import DAY_US, FEATURES, Words
from playbill.campaign.acts import Act, read
from playbill.campaign.audience import read_people
from playbill.campaign.audience_job import run as audience
from playbill.campaign.settings import Audience
from playbill.cli import compose
from playbill.errors import ConfigError, FeatureError, TableError, TrainingError
from playbill.state.store import Store
from playbill.tables.folder import read_folder
from playbill.training.campaign.acts_fit import as_arrays, fit
from playbill.training.campaign.acts_job import read_report, run, words_of
from playbill.training.campaign.acts_learn import ActReport
from playbill.training.campaign.acts_moments import Rows, drawn, moments, shifted
from playbill.world.build import build
from playbill.world.generate import run as generate

WORLD = ["world=fitted", "size=tiny", "size.people=2500", "size.days=160", "size.activity=1", "seed=3", "name=acts"]
SHORT = ["tables=acts", "history_days=40", "until=2025-06-15", "cutoffs=4"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("acts")
    generate(compose("generate", [f"home={home}", *WORLD, "size.decisions_share=1", "size.contexts=false"]))
    run(compose("train-acts", [f"home={home}", *SHORT]))
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> ActReport:
    return read_report(home / "runs" / "acts-acts")


def test_what_is_kept_beats_the_rule_by_recency_on_later_moments(report: ActReport) -> None:
    for name in ("churn_30", "return_14"):
        found = report.acts[name]
        assert found.rows > 1000 and found.gained["recency"].low > 0.02
        assert found.chances[found.chosen].auc > 0.75
        assert found.calibration is not None and found.calibration.ratio is not None
        assert 0.85 < found.calibration.ratio.value < 1.15


def test_acts_that_the_data_does_not_carry_name_what_is_missing(home: Path, report: ActReport) -> None:
    assert report.lacking["churn_90"] == "churn_90: needs 310 days of events, there are 159"
    assert not report.rungs["churn_90"].carried and report.rungs["churn_30"].carried
    found = read(home / "runs" / "acts-acts")
    assert found is not None and found.spec.lacking == report.lacking
    assert {act.name for act in found.spec.acts} == set(report.acts)


def test_without_purchases_and_money_acts_say_so(ml100k_tables: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ml-100k").symlink_to(ml100k_tables)
    run(compose("train-acts", [f"home={tmp_path}", "cutoffs=2"]))
    report = read_report(tmp_path / "runs" / "ml-100k-acts")
    for name in ("purchase_30", "next_purchase", "value_30"):
        assert report.lacking[name] == f"{name}: no event is a purchase: none is named purchase"
    assert "churn_30" in report.acts  # and needs neither
    with pytest.raises(
        TrainingError, match=r"churn_30: needs 1170 days .* value_30: no event declares a unit of money"
    ):
        run(compose("train-acts", [f"home={tmp_path}", "purchases=[rate]", "history_days=1080"]))


def test_moments_end_before_those_that_judge_them_begin(home: Path) -> None:
    from playbill.campaign.act_features import read_acts_log

    words = Words(purchases=["purchase"], money=[], opens=["open"], mail=[], days=40)
    log = read_acts_log(home / "tables" / "acts", words)
    fewer = drawn(log, 100, 0)
    assert fewer.events["user_id"].n_unique() == 100 and (fewer.first, fewer.last) == (log.first, log.last)
    assert drawn(log, 100, 0).events.equals(fewer.events) and drawn(log, 10_000, 0) is log
    at = moments(log, 40, 30, 7, 8)
    month = 30 * DAY_US
    assert at.learn[0] >= log.first + 40 * DAY_US
    assert at.learn[-1] + month <= at.calibrate[0] and at.calibrate[-1] + month <= at.judge[0]
    assert at.judge[-1] + month <= log.last
    now = shifted(at, 30, 7)
    assert now.calibrate == at.judge and now.learn[-1] + month <= now.calibrate[0] and len(now.learn) == len(at.learn)


def test_nothing_is_learned_from_a_column_that_is_protected(home: Path) -> None:
    about = read_folder(home / "tables" / "acts")
    settings = compose("train-acts", SHORT)
    assert words_of(about, settings).money == ["purchase"]
    marked = [msgspec.structs.replace(c, sensitive=c.name == "item_id") for c in about.columns["events"]]
    bad = msgspec.structs.replace(about, columns={**about.columns, "events": marked})
    with pytest.raises(TableError, match="events.item_id is protected or sensitive"):
        words_of(bad, settings)


def test_trees_as_arrays_say_what_the_library_says() -> None:
    pytest.importorskip("lightgbm")
    draw = np.random.default_rng(0)
    x = draw.exponential(size=(3000, len(FEATURES)))
    y = (draw.random(3000) < 1 / (1 + np.exp(-(x[:, 0] - x[:, 1])))).astype(np.float64)
    act = Act(name="return_14", horizon=14)
    model = fit("trees", act, Rows(x, y, np.arange(3000)), 0)  # compares itself with LightGBM
    assert np.corrcoef(model(x, 14), x[:, 0] - x[:, 1])[0, 1] > 0.8
    stump = as_arrays([{"tree_structure": {"leaf_value": 1.5}}], "log")
    assert stump(x[:2], 0) == pytest.approx(np.exp([1.5, 1.5]))


def test_the_trigger_writes_to_people_who_would_hardly_come_anyway(home: Path, tmp_path: Path) -> None:
    asked = [f"home={home}", "tables=acts", "at=2025-06-15", "churn_at_least=0.2", "return_at_most=0.5"]
    audience(compose("campaign-audience", asked))
    folder = home / "audiences" / "re_engagement"
    chosen, held = pl.read_parquet(folder / "audience.parquet"), pl.read_parquet(folder / "held.parquet")
    counts = msgspec.json.decode((folder / "success.json").read_bytes())["counts"]
    users = pl.read_parquet(home / "tables" / "acts" / "users.parquet")
    assert sum(counts.values()) == len(users) and counts["sent"] == len(chosen) > 5
    assert dict(held["reason"].value_counts().rows()) == {k: n for k, n in counts.items() if k != "sent"}
    denied = users.filter(~pl.col("consent_personalisation").fill_null(False))["user_id"]
    assert counts["no_consent"] == len(denied) > 0
    settings = compose("generate", WORLD)
    world = build(settings.world, settings.size, settings.seed)
    come = 1 - np.exp(-14 * world.people.visits_per_day.astype(np.float64))
    known = held.filter(pl.col("reason").is_in(["active", "would_return"]))
    of_chosen, of_held = (come[rows["user_id"].to_numpy() - 1].mean() for rows in (chosen, known))
    assert of_chosen < 0.6 and of_chosen < of_held - 0.2
    # a campaign takes the file as its audience
    taken = read_people(home / "tables" / "acts", Audience(file=str(folder / "audience.parquet")))
    assert taken.user_ids.to_list() == chosen["user_id"].to_list() and not len(taken.aside)
    # of whoever took their consent back since the tables were made, nothing that they did is looked at
    first, *others = chosen["user_id"].to_list()
    with Store.open(tmp_path / "state") as store:
        store.set_features({first: {"consent_personalisation": False}, others[0]: {"consent_personalisation": True}})
    audience(compose("campaign-audience", [*asked, f"state={tmp_path}/state"]))
    assert pl.read_parquet(folder / "audience.parquet")["user_id"].to_list() == others
    held = pl.read_parquet(folder / "held.parquet")
    assert held.filter(pl.col("user_id") == first)["reason"].to_list() == ["no_consent"]


def test_baskets_name_their_item_and_only_declared_events_make_one(home: Path) -> None:
    asked = [f"home={home}", "tables=acts", "trigger=basket", "at=2025-06-10T12:00Z"]
    with pytest.raises(ConfigError, match="add_to_cart is no event that .* declares; there are: click"):
        audience(compose("campaign-audience", asked))
    audience(compose("campaign-audience", [*asked, "basket_events=[click]", "return_at_most=1"]))
    rows = pl.read_parquet(home / "audiences" / "basket" / "audience.parquet")
    events = pl.read_parquet(home / "tables" / "acts" / "events.parquet")
    clicked = events.filter(pl.col("event") == "click").select("user_id", "item_id")
    assert len(rows) > 10 and rows.join(clicked, on=["user_id", "item_id"], how="anti").is_empty()
    price = pl.read_parquet(home / "tables" / "acts" / "items.parquet").select("item_id", "price")
    limit = price["price"].median()
    audience(
        compose(
            "campaign-audience", [*asked, "basket_events=[click]", "return_at_most=1", f'sensitive="price > {limit}"']
        )
    )
    fewer = pl.read_parquet(home / "audiences" / "basket" / "audience.parquet")
    assert 0 < len(fewer) < len(rows)
    assert (fewer.join(price, on="item_id")["price"] <= limit).all()
    with pytest.raises(FeatureError, match="run `playbill train-acts tables=acts`"):
        audience(compose("campaign-audience", [*asked, "acts=/nowhere"]))
