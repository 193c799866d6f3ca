"""evaluate -> gate -> publish on real data: the order is kept, a failure stops, and going past it is recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.bundle.manifest import State
from playbill.bundle.open import open_bundle
from playbill.bundle.policy import Exploration, Policy, Surface, write_policy
from playbill.bundle.write import current, state_of
from playbill.cli import compose, main
from playbill.errors import BundleError, ConfigError, GateError
from playbill.release import evaluate, gate, publish
from playbill.release.bundles import find_bundle, read_report
from playbill.release.gate import GateReport
from playbill.release.gate_settings import GateSettings, LimitRule, Rules
from playbill.release.latency import Latency
from playbill.release.report import Evaluation
from playbill.release.settings import EvaluateSettings, PublishSettings
from playbill.training.export import run as export
from playbill.training.settings import ExportSettings

Make = Callable[..., EvaluateSettings]

IMPOSSIBLE = Rules(limits={"impossible": LimitRule(report="evaluation", figure="users.all", at_least=1e9)})


def shipped(home: Path, *overrides: str) -> GateSettings:
    settings = compose("gate", [f"home={home}", *overrides])
    assert isinstance(settings, GateSettings)
    return settings


def test_the_road_from_staged_to_published(
    home: Path, evaluate_settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = home / "bundles"
    path = find_bundle(bundles, "latest")
    with pytest.raises(BundleError, match="was not evaluated"):
        gate.run(shipped(home))
    evaluate.run(evaluate_settings())
    with pytest.raises(GateError, match="was not held against the gate"):
        publish.run(PublishSettings(home=str(home)))
    gate.run(shipped(home))
    report = read_report(path, "gate", GateReport)
    assert report is not None and report.passed
    verdicts = {rule.name: rule.verdict.value for rule in report.rules}
    assert verdicts == {
        "not_below_popularity": "passed",
        "not_below_popularity_known": "passed",
        "not_far_below_best_rival": "does not apply",  # no tower
        "not_worse_than_current": "does not apply",  # nothing in use yet
        "graphs_answer_as_trained": "does not apply",
        "index_finds_the_nearest": "does not apply",
        "answers_in_time": "passed",
        "not_slower_than_current": "does not apply",  # nothing in use yet
        "probabilities_come_true": "does not apply",  # no ranker
        "not_worth_less_than_current": "refused",  # no decisions
        "groups_get_lists_alike": "passed",
    }
    assert state_of(path) is State.SEALED
    assert '<h2 id="gate">' in (path / "report" / "index.html").read_text()
    publish.run(PublishSettings(home=str(home)))
    assert current(bundles) == path.name
    assert state_of(path) is State.PUBLISHED
    open_bundle(path)  # every byte as sealed: nothing was written after
    # again: each job finds that there is nothing to do
    capsys.readouterr()
    evaluate.run(evaluate_settings())
    gate.run(shipped(home))
    publish.run(PublishSettings(home=str(home)))
    out = capsys.readouterr().out
    assert "nothing changed" in out and out.count("nothing to do") == 2
    open_bundle(path)
    lines = [json.loads(line) for line in (bundles / "published.jsonl").read_text().splitlines()]
    assert [(line["bundle"], line["previous"], line["gate_passed"]) for line in lines] == [(path.name, None, True)]


def test_a_failed_rule_stops_the_bundle_and_force_leaves_a_record(
    home: Path, evaluate_settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.run(evaluate_settings())
    path = find_bundle(home / "bundles", "latest")
    with pytest.raises(GateError, match=r"may not go out: impossible failed"):
        gate.run(GateSettings(home=str(home), gate=IMPOSSIBLE))
    assert state_of(path) is State.EVALUATED
    assert "166" in capsys.readouterr().out  # the figure that was found
    assert main(["gate", f"home={home}", "gate.limits.index_finds_the_nearest.needs=[]"]) == 1
    with pytest.raises(GateError, match="failed index_finds_the_nearest"):
        publish.run(PublishSettings(home=str(home)))
    with pytest.raises(ConfigError, match="say why"):
        PublishSettings(home=str(home), force=True, reason=" ")
    assert current(home / "bundles") is None
    publish.run(PublishSettings(home=str(home), force=True, reason="the old one is broken"))
    assert current(home / "bundles") == path.name
    assert json.loads((path / "report" / "forced.json").read_bytes())["failed"] == ["index_finds_the_nearest"]
    assert "report/forced.json" in open_bundle(path).manifest.files
    with pytest.raises(GateError, match="sealed past its gate"):
        gate.run(shipped(home))
    line = json.loads((home / "bundles" / "published.jsonl").read_text())
    assert (line["gate_passed"], line["forced"]) == (False, "the old one is broken")


def test_what_changed_after_it_was_measured_is_not_judged(home: Path, evaluate_settings: Make) -> None:
    evaluate.run(evaluate_settings())
    path = find_bundle(home / "bundles", "latest")
    policy = (path / "policy.json").read_bytes()
    (path / "policy.json").write_bytes(policy + b"\n")
    with pytest.raises(BundleError, match="changed after it was evaluated"):
        gate.run(shipped(home))
    (path / "policy.json").write_bytes(policy)
    gate.run(shipped(home))


def test_measuring_again_takes_a_verdict_back(home: Path, evaluate_settings: Make) -> None:
    evaluate.run(evaluate_settings())
    path = find_bundle(home / "bundles", "latest")
    with pytest.raises(GateError):
        gate.run(GateSettings(home=str(home), gate=IMPOSSIBLE))
    assert (path / "report" / "gate.json").is_file()
    evaluate.run(evaluate_settings(force=True))
    assert not (path / "report" / "gate.json").exists()


def test_a_gate_without_rules_lets_nothing_through(home: Path, evaluate_settings: Make) -> None:
    evaluate.run(evaluate_settings())
    with pytest.raises(GateError, match="no rules"):
        gate.run(GateSettings(home=str(home)))


def test_the_next_bundle_is_held_against_the_one_in_use(
    home: Path, evaluate_settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.run(evaluate_settings())
    gate.run(shipped(home))
    publish.run(PublishSettings(home=str(home)))
    first = current(home / "bundles")
    assert first is not None
    # one that draws every place by chance among the candidates is worse, and must not get past the rules as shipped
    dice = Exploration(epsilon=1.0, slots=20)
    (home / "policy.json").write_bytes(write_policy(Policy(surfaces={"slate": Surface(exploration=dice)})))
    worse = export(ExportSettings(home=str(home), policy_file=str(home / "policy.json")))
    evaluate.run(evaluate_settings())
    with pytest.raises(GateError, match="not_worse_than_current"):
        gate.run(shipped(home))
    assert state_of(worse) is State.EVALUATED
    second = export(ExportSettings(home=str(home), half_life_days=3.0))
    assert find_bundle(home / "bundles", "latest") == second  # exported last
    evaluate.run(evaluate_settings())
    found = read_report(second, "evaluation", Evaluation)
    before = read_report(home / "bundles" / first, "evaluation", Evaluation)
    assert found is not None and before is not None
    then, now = before.model("served"), found.model("current")
    assert then is not None and now is not None
    # the same bundle, the same people: the same lists, so the same figures
    assert now.slices["known"].metrics == then.slices["known"].metrics
    assert now.slices["all"].coverage == then.slices["all"].coverage
    gate.run(shipped(home))
    report = read_report(second, "gate", GateReport)
    assert report is not None
    assert {r.name: r.verdict for r in report.rules}["not_worse_than_current"] == "passed"
    assert report.against == first
    timed = read_report(second, "latency", Latency)
    assert timed is not None and timed.current is not None and timed.ratio is not None
    assert (timed.new.bundle, timed.current.bundle) == (second.name, first)
    assert timed.ratio.low <= timed.ratio.value <= timed.ratio.high
    with pytest.raises(BundleError, match=f"was evaluated beside {first}, and is to be held against"):
        gate.judge(second, shipped(home, f"against={worse.name}"))
    capsys.readouterr()
    publish.run(PublishSettings(home=str(home)))
    out = capsys.readouterr().out
    assert first in out and second.name in out and "ndcg_at_20 on ml-100k" in out
    # and back again, for a reason: the first was never held against the second
    with pytest.raises(GateError, match=f"beside no other bundle, and {second.name} is in use now; it was in use"):
        publish.run(PublishSettings(home=str(home), bundle=first))
    publish.run(PublishSettings(home=str(home), bundle=first, force=True, reason="people complain"))
    assert current(home / "bundles") == first
    lines = [json.loads(line) for line in (home / "bundles" / "published.jsonl").read_text().splitlines()]
    assert [line["bundle"] for line in lines] == [first, second.name, first]


def test_what_was_judged_beside_an_older_bundle_than_the_one_in_use_is_judged_again(
    home: Path, evaluate_settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = home / "bundles"
    first = find_bundle(bundles, "latest")
    evaluate.run(evaluate_settings())
    gate.run(shipped(home))
    publish.run(PublishSettings(home=str(home)))
    second, third = (export(ExportSettings(home=str(home), half_life_days=days)) for days in (3.0, 5.0))
    for path in (second, third):
        evaluate.run(evaluate_settings(bundle=path.name))
        gate.run(shipped(home, f"bundle={path.name}"))
    publish.run(PublishSettings(home=str(home), bundle=second.name))
    with pytest.raises(
        GateError, match=f"judged beside {first.name}, and {second.name} is in use now; run `playbill ev"
    ):
        publish.run(PublishSettings(home=str(home), bundle=third.name))
    sealed = (third / "items.parquet").read_bytes()
    evaluate.run(evaluate_settings(bundle=third.name))
    assert state_of(third) is State.EVALUATED and not (third / "report" / "gate.json").exists()
    gate.run(shipped(home, f"bundle={third.name}"))
    publish.run(PublishSettings(home=str(home), bundle=third.name))
    report = read_report(third, "gate", GateReport)
    assert report is not None and report.against == second.name and current(bundles) == third.name
    assert (third / "items.parquet").read_bytes() == sealed
    open_bundle(third)
    # one that was in use is never opened again, whatever it is asked beside
    capsys.readouterr()
    evaluate.run(evaluate_settings(bundle=second.name))
    assert "it stays so" in capsys.readouterr().out and state_of(second) is State.SEALED
    assert "answers_in_time" in {rule.name for rule in report.rules}


def test_looser_rules_than_the_named_ones_are_told_of_and_not_published(
    home: Path, evaluate_settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.run(evaluate_settings())
    path = find_bundle(home / "bundles", "latest")
    capsys.readouterr()
    loose = [
        "gate",
        f"home={home}",
        "gate.limits.answers_in_time.at_most=900",
        "gate.paired.not_below_popularity.margin=0.5",
    ]
    assert main(loose) == 0
    told = (
        "standard, changed: paired.not_below_popularity.margin 0 -> 0.5 (looser); "
        "limits.answers_in_time.at_most 250 -> 900 (looser)"
    )
    assert told in " ".join(capsys.readouterr().out.split())
    assert told.replace(">", "&gt;") in (path / "report" / "index.html").read_text()
    found = json.loads((path / "report" / "gate.json").read_bytes())
    assert found["preset"] == "standard" and found["passed"]
    assert [(c["rule"], c["field"], c["preset"], c["here"]) for c in found["changed"]] == [
        ("paired.not_below_popularity", "margin", 0.0, 0.5),
        ("limits.answers_in_time", "at_most", 250.0, 900.0),
    ]
    with pytest.raises(GateError, match=r"looser rules than those of conf/gate/ \(rules: standard, changed: paired"):
        publish.run(PublishSettings(home=str(home)))
    assert current(home / "bundles") is None
    # never in use: judged again, by the rules as they stand, and by stricter ones as well
    gate.run(shipped(home, "gate.limits.answers_in_time.at_most=200"))
    assert "judged again" in capsys.readouterr().out and state_of(path) is State.SEALED
    publish.run(PublishSettings(home=str(home)))
    line = json.loads((home / "bundles" / "published.jsonl").read_text())
    assert (line["gate_passed"], line["forced"]) == (True, "")
    assert line["rules"] == "standard, changed: limits.answers_in_time.at_most 250 -> 200"


def test_looser_rules_that_are_forced_are_recorded(home: Path, evaluate_settings: Make) -> None:
    evaluate.run(evaluate_settings())
    assert main(["gate", f"home={home}", "~gate.paired.not_below_popularity"]) == 0
    publish.run(PublishSettings(home=str(home), force=True, reason="the sale begins"))
    line = json.loads((home / "bundles" / "published.jsonl").read_text())
    assert (line["gate_passed"], line["forced"]) == (False, "the sale begins")
    assert line["rules"] == "standard, changed: paired.not_below_popularity left out (looser)"


def test_a_report_that_no_job_wrote_is_not_judged(home: Path, evaluate_settings: Make) -> None:
    evaluate.run(evaluate_settings())
    report = find_bundle(home / "bundles", "latest") / "report"
    kept = {name: (report / name).read_bytes() for name in ("evaluation.json", "disparity.json", "quality.json")}
    (report / "evaluation.json").write_bytes(kept["evaluation.json"].replace(b'"value": 0.', b'"value": 0.9', 1))
    (report / "disparity.json").unlink()
    with pytest.raises(
        BundleError, match=r"disparity.json is gone; report/evaluation.json is not as .*`playbill evaluate"
    ):
        gate.run(shipped(home))
    evaluate.run(evaluate_settings())  # not "nothing changed": it measures again
    gate.judge(report.parent, shipped(home))
    (report / "quality.json").write_bytes(b"{}")
    (report / "parity.json").write_bytes(b'{"worst_share": 0}')
    with pytest.raises(
        BundleError, match=r"parity.json was not written by a job.*quality.json is not as .*`playbill export"
    ):
        gate.run(shipped(home))
    (report / "parity.json").unlink()
    evaluate.run(evaluate_settings(force=True))  # which says nothing of what the export wrote
    with pytest.raises(BundleError, match="quality.json is not as"):
        gate.run(shipped(home))
    (report / "quality.json").write_bytes(kept["quality.json"])
    gate.run(shipped(home))


def test_a_bundle_in_use_that_may_know_the_answers_is_not_asked(home: Path, evaluate_settings: Make) -> None:
    """The one in use was made with a later split: on this one it would be asked about what it was fitted on."""
    from playbill.dataset.settings import SplitSettings

    path = find_bundle(home / "bundles", "latest")
    later = export(ExportSettings(home=str(home), split=SplitSettings(train=0.9, valid=0.05)))
    publish.run(PublishSettings(home=str(home), bundle=later.name, force=True, reason="a test"))
    evaluate.run(evaluate_settings(bundle=path.name))
    found = read_report(path, "evaluation", Evaluation)
    assert found is not None and found.model("current") is None
    assert any(later.name in note and "may know the answers" in note for note in found.notes)


def test_little_data_goes_the_same_road(
    make_tables: Callable[..., Path], tmp_path: Path, evaluate_settings: Make
) -> None:
    """600 events of 40 people: no tower, one bundle all the same, and the rules that apply to it hold."""
    import msgspec

    from playbill.tables.settings import SufficiencySettings
    from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency

    day = 86_400_000_000
    events = [
        {
            "event_id": n,
            "user_id": n % 40,
            "event": "view",
            "at": n * day // 10,
            "item_id": f"i{(n * n + n // 40) % 30}",
        }
        for n in range(600)
    ]
    tables = make_tables(
        events=events,
        items=[{"item_id": f"i{i}", "title": f"thing {i}"} for i in range(30)],
        users=[{"user_id": n} for n in range(40)],
        name="shop_home/tables/shop",
    )
    (tables / "report").mkdir()
    (tables / SUFFICIENCY_FILE).write_bytes(msgspec.json.encode(measure_sufficiency(tables, SufficiencySettings())))
    shop = tmp_path / "shop_home"
    path = export(ExportSettings(home=str(shop), tables="shop"))
    evaluate.run(evaluate_settings(home=str(shop), tables="shop"))
    gate.run(shipped(shop))
    publish.run(PublishSettings(home=str(shop)))
    assert current(shop / "bundles") == path.name
    assert open_bundle(path).rungs == ["popularity", "item_knn"]


def test_a_bundle_for_which_nobody_was_held_out(
    make_tables: Callable[..., Path], tmp_path: Path, evaluate_settings: Make
) -> None:
    """Three events at one moment: nothing can be held out, popularity is all there is, and it may go out."""
    import msgspec

    from playbill.tables.settings import SufficiencySettings
    from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency

    tables = make_tables(
        events=[{"event_id": n, "user_id": n, "event": "view", "at": 5, "item_id": "a"} for n in range(3)],
        items=[{"item_id": "a"}, {"item_id": "b"}],
        users=[{"user_id": n} for n in range(3)],
        name="tiny_home/tables/tiny",
    )
    (tables / "report").mkdir()
    (tables / SUFFICIENCY_FILE).write_bytes(msgspec.json.encode(measure_sufficiency(tables, SufficiencySettings())))
    tiny = tmp_path / "tiny_home"
    path = export(ExportSettings(home=str(tiny), tables="tiny"))
    evaluate.run(evaluate_settings(home=str(tiny), tables="tiny"))
    found = read_report(path, "evaluation", Evaluation)
    assert found is not None and found.users["all"] == 0 and found.best_rival is None
    gate.run(shipped(tiny))
    publish.run(PublishSettings(home=str(tiny)))
    shutil.rmtree(tiny)
