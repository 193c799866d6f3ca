"""What an evaluation measures besides lists, on a simulated shop whose log draws items with known propensities."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from playbill.bundle.open import open_bundle
from playbill.cli import compose, main
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.engine.engine import Engine
from playbill.engine.types import Request, Slate
from playbill.errors import BundleError
from playbill.features.settings import FeatureSettings
from playbill.measure.off_policy.rounds import read_rounds
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.release import evaluate, gate
from playbill.release.bundles import read_report
from playbill.release.disparity import DisparityReport
from playbill.release.gate import GateReport
from playbill.release.latency import Latency
from playbill.release.logged import logs_of, of_test
from playbill.release.protocol import ask
from playbill.release.settings import EvaluateSettings, RivalSettings
from playbill.release.value import Value, measure_value
from playbill.training.export import run as export
from playbill.training.settings import ExportSettings
from playbill.world.generate import run as generate

CLICKS = OffPolicyQuestion(reward_event="click", within_h=0.0, resamples=500, least_effective=30.0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a fortnight of a shop that shows its items by chance, and a bundle of counts and neighbours."""
    home = tmp_path_factory.mktemp("shop")
    generate(compose("generate", ["size=tiny", f"home={home}", "name=shop", "item.kind=uniform"]))
    export(ExportSettings(home=str(home), tables="shop"))
    return home


@pytest.fixture
def settings_of(shop: Path, few_rivals: RivalSettings) -> Callable[..., EvaluateSettings]:
    def make(**changes: object) -> EvaluateSettings:
        fields = {
            "home": str(shop),
            "tables": "shop",
            "rivals": few_rivals,
            "resamples": 200,
            "value": CLICKS,
            "latency_requests": 20,
        }
        return EvaluateSettings(**fields | changes)  # type: ignore[arg-type]  # a test's fields

    return make


def test_every_check_is_in_the_report_and_the_gate_reads_them(
    shop: Path, settings_of: Callable[..., EvaluateSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = (p for p in (shop / "bundles").iterdir() if p.is_dir())
    evaluate.run(settings_of())
    page = (path / "report" / "index.html").read_text()
    latency, value = read_report(path, "latency", Latency), read_report(path, "value", Value)
    assert latency is not None and latency.current is None and latency.new.bundle == path.name
    assert 0 < latency.new.median_ms <= latency.new.p90_ms <= latency.new.p99_ms
    assert value is not None and not value.refused and value.estimator == "DR"
    assert value.new is not None and value.new.overlap.mean_weight_low < 1 < value.new.overlap.mean_weight_high
    for name in ("latency", "value", "disparity"):
        assert f'<h2 id="{name}">' in page
    assert not (path / "report" / "calibration.json").exists()  # no ranker
    # first word: the bundle; another bundle to hold it against was not asked
    with pytest.raises(BundleError, match="no bundle 'other'|evaluated beside no other bundle"):
        gate.run(compose("gate", [f"home={shop}", f"bundle={path.name}", "against=other"]))
    capsys.readouterr()
    code = main(["gate", path.name, f"home={shop}"])
    out = capsys.readouterr().out
    report = read_report(path, "gate", GateReport)
    assert report is not None and code == (0 if report.passed else 1)
    for rule in report.rules:
        assert rule.name in out and rule.found
    told = {rule.name: rule.verdict.value for rule in report.rules}
    assert told["answers_in_time"] == "passed"
    assert told["not_worth_less_than_current"] == "does not apply"  # nothing in use, and the log could say


def test_the_value_is_that_of_the_decisions_it_agrees_with(shop: Path) -> None:
    """Under a uniform log a fixed order is worth what came of the decisions at which it would have chosen the same."""
    tables = shop / "tables" / "shop"
    [path] = (p for p in (shop / "bundles").iterdir() if p.is_dir())
    bundle = open_bundle(path, require_sealed=False)
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings())
    found = measure_value([bundle, bundle], tables, dataset, CLICKS, most_requests=150, seed=1, level=0.95)
    assert not found.refused and found.new is not None and found.new.value is not None and found.logged is not None
    assert any("150 requests" in note for note in found.notes) and found.requests == 150
    overlap = found.new.overlap
    # one of eight would be chosen, each with the same probability: weights are 0 and 8
    assert overlap.largest_weight == pytest.approx(8) and overlap.unused_share == pytest.approx(7 / 8, abs=0.02)
    assert found.new.value.low < found.new.value.value < found.new.value.high
    [log] = logs_of([bundle], *of_test(read_rounds(tables, CLICKS), tables, dataset, 150, 1), tables, dataset)
    agreed = log.target > 0
    assert agreed.sum() == found.new.overlap.effective_rounds
    assert found.new.value.low < log.reward[agreed].mean() < found.new.value.high
    assert log.choices is not None and log.choices.sums(log.choices.target) == pytest.approx(1)
    # a bundle beside itself is worth the same, decision by decision
    assert found.less_current is None or abs(found.less_current.value) < 1e-12
    assert found.current is not None and found.current.value == found.new.value
    # what people like is on top of popular lists: chosen at random, items are clicked less
    assert found.new.less_logged is not None and found.new.less_logged.high > 0


def test_no_images_are_chosen_for_the_value_and_its_requests_come_some_at_a_time(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shop / "tables", tmp_path / "tables")
    policy = tmp_path / "policy.json"
    policy.write_text('{"surfaces": {"slate": {"creatives": {"kind": "epsilon_greedy", "epsilon": 1.0}}}}')
    bundle = open_bundle(
        export(ExportSettings(home=str(tmp_path), tables="shop", policy_file=str(policy))), require_sealed=False
    )
    assert bundle.creatives is not None
    tables = shop / "tables" / "shop"
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings())
    asked = of_test(read_rounds(tables, CLICKS), tables, dataset, 40, 1)
    chosen, together = [], []

    def count(engine: Engine, requests: Sequence[Request]) -> list[Slate]:
        slates, decisions = engine.decide(requests)
        together.append(len(requests))
        chosen.extend(decisions)
        return slates

    monkeypatch.setattr(Engine, "recommend", count)
    [whole] = logs_of([bundle], *asked, tables, dataset)
    assert not chosen and together == [40]
    monkeypatch.setattr("playbill.release.logged._ASKED_AT_ONCE", 16)
    [parts] = logs_of([bundle], *asked, tables, dataset)
    assert together[1:] == [16, 16, 8] and (parts.target == whole.target).all()


def test_a_log_without_support_is_refused_and_says_why(shop: Path, tmp_path: Path) -> None:
    tables = shop / "tables" / "shop"
    [path] = (p for p in (shop / "bundles").iterdir() if p.is_dir())
    bundle = open_bundle(path, require_sealed=False)
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings())
    few = OffPolicyQuestion(reward_event="click", within_h=0.0, resamples=200, least_effective=1e6)
    found = measure_value([bundle], tables, dataset, few, most_requests=100, seed=0, level=0.95)
    assert "at least 1e+06 are needed" in found.refused and found.new is not None and found.new.value is None
    absent = OffPolicyQuestion(reward_event="dance")
    assert (
        "no event 'dance'"
        in measure_value([bundle], tables, dataset, absent, most_requests=10, seed=0, level=0.95).refused
    )
    # a log that says uniform and is not
    folder = tmp_path / "tables" / "shop"
    folder.parent.mkdir()
    folder.mkdir()
    for file in tables.iterdir():
        (folder / file.name).symlink_to(file)
    log = pl.read_parquet(tables / "decisions.parquet")
    (folder / "decisions.parquet").unlink()
    wrong = log.with_columns(pl.when(pl.col("kind") == "item").then(0.5).otherwise("propensity").alias("propensity"))
    pq.write_table(wrong.to_arrow(), folder / "decisions.parquet")
    found = measure_value([bundle], folder, dataset, CLICKS, most_requests=100, seed=0, level=0.95)
    assert "the log cannot be used" in found.refused and "called uniform" in found.refused


def test_groups_are_compared_by_the_lists_they_get(shop: Path, settings_of: Callable[..., EvaluateSettings]) -> None:
    from playbill.measure.disparity.parity import Family
    from playbill.release.disparity import compared

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0.2, 0.4, 200), rng.uniform(0.1, 0.2, 100), rng.uniform(0, 1, 5)])
    family = Family("g", np.repeat([0, 1, 2], [200, 100, 5]), ["g=a", "g=b", "g=c"], 0)
    half, tiny = compared(values, [family], "ndcg_at_20", 0.95, 30)
    assert half.ratio == pytest.approx(0.5, abs=0.03) and half.differs and half.people == 100
    assert tiny.not_judged and not tiny.differs
    [path] = (p for p in (shop / "bundles").iterdir() if p.is_dir())
    evaluate.run(settings_of(least_group=5))
    report = read_report(path, "disparity", DisparityReport)
    assert report is not None and {gap.group.partition("=")[0] for gap in report.gaps} == {"group", "age_band"}
    dataset = open_dataset(shop / "tables" / "shop", FeatureSettings(), SplitSettings())
    known = len(ask(dataset, "test"))
    assert all(gap.people <= known for gap in report.gaps)
