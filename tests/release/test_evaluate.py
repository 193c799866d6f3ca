"""`playbill evaluate` on MovieLens-100K: figures that are known from elsewhere, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.bundle.manifest import Draft, State, decode_draft, encode_draft
from playbill.bundle.write import state_of
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import BundleError, ConfigError
from playbill.features.settings import FeatureSettings
from playbill.release import evaluate
from playbill.release.bundles import find_bundle, read_report
from playbill.release.protocol import ask
from playbill.release.report import Evaluation
from playbill.release.settings import EvaluateSettings, RivalSettings
from playbill.release.variety import VarietyReport
from playbill.state.store import Store

Make = Callable[..., EvaluateSettings]


def run(settings: EvaluateSettings) -> Evaluation:
    evaluate.run(settings)
    found = read_report(find_bundle(Path(settings.home) / "bundles", settings.bundle), "evaluation", Evaluation)
    assert found is not None
    return found


def test_movielens_gives_the_figures_known_from_elsewhere(home: Path, evaluate_settings: Make) -> None:
    found = run(evaluate_settings())
    assert found.users == {"all": 166, "known": 90, "new": 76}
    ease = found.model("ease")
    assert ease is not None and "l2 500: best of 2 on validation" in ease.about
    # global 80/10/10, EASE tuned on validation: recall 0.136 and ndcg 0.302 at 20
    assert ease.slices["all"].metrics["recall_at_20"].value == pytest.approx(0.136, abs=0.001)
    assert ease.slices["all"].metrics["ndcg_at_20"].value == pytest.approx(0.302, abs=0.003)
    names = [m.name for m in found.models]
    assert names == ["served", "popularity", "trending", "item_knn", "order_knn", "ease", "ials"]
    assert found.models[0].rungs == {"item_knn": 90, "popularity": 76}
    assert state_of(find_bundle(home / "bundles", "latest")) is State.EVALUATED
    for model in found.models:
        assert set(model.slices) == {"all", "known", "new"}
        everybody, known, new = (model.slices[s].metrics["recall_at_10"] for s in ("all", "known", "new"))
        assert everybody.value == pytest.approx((90 * known.value + 76 * new.value) / 166)
        assert everybody.low < everybody.value < everybody.high
        assert 0 < model.slices["all"].coverage[10] <= model.slices["all"].coverage[20] <= 1
    assert found.best_rival == "trending"
    served, best = found.models[0].slices["all"], found.model("trending")
    assert best is not None and not best.slices["all"].against_best
    gap = served.metrics["ndcg_at_20"].value - best.slices["all"].metrics["ndcg_at_20"].value
    assert served.against_best["ndcg_at_20"].value == pytest.approx(gap)
    personal = ["item_knn", "order_knn", "ease", "ials", "popularity"]
    without = {n: found.model(n) for n in personal}
    figures = {m.slices["new"].metrics["ndcg_at_20"].value for m in without.values() if m is not None}
    assert len(figures) == 1  # nobody without a history gets anything but popularity

    path = find_bundle(home / "bundles", "latest")
    variety = read_report(path, "variety", VarietyReport)
    assert variety is not None and variety.people == 166 and (path / "report" / "variety.png").is_file()
    spread = [p for p in variety.points if p.kind == "diversity"]
    mixed = [spread[0], *(p for p in variety.points if p.kind == "mix")]
    assert [p.strength for p in spread] == [p.strength for p in mixed] == [0.0, 0.1, 0.2, 0.35, 0.5]
    assert spread[0].utility.value == pytest.approx(served.metrics["ndcg_at_20"].value)
    assert spread[-1].diversity > spread[2].diversity > spread[0].diversity and 0 < spread[0].shared < 1
    far = [p.mismatch for p in mixed]
    assert far[0] is not None and far[-1] is not None and far[-1] < 0.8 * far[0]
    assert any(p.best for p in variety.points) and all(p.best for p in variety.points if p.diversity == max(
        q.diversity for q in variety.points))  # fmt: skip


def test_a_second_run_opens_nothing_and_force_gives_the_same_figures(
    evaluate_settings: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(evaluate_settings())
    again = run(evaluate_settings(force=True))
    again.seconds = first.seconds
    assert again == first

    def fail(*_: object) -> None:
        raise AssertionError("nothing changed, so nothing is measured")

    monkeypatch.setattr(evaluate, "open_dataset", fail)
    capsys.readouterr()
    run(evaluate_settings())
    out = capsys.readouterr().out
    assert "nothing changed" in out and "EASE" in out and "166" in out
    with pytest.raises(AssertionError):
        run(evaluate_settings(ks=[20]))


def test_the_page_shows_every_report_and_needs_no_network(home: Path, evaluate_settings: Make) -> None:
    run(evaluate_settings())
    report = find_bundle(home / "bundles", "latest") / "report"
    page = (report / "index.html").read_text()
    for name in ("evaluation", "sufficiency", "quality"):
        assert f'<h2 id="{name}">' in page
    assert "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert (report / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    for cell in ("order-aware item-kNN", "people without a history", "first 20 places"):
        assert cell in page


def test_a_bundle_trained_on_another_split_is_refused(evaluate_settings: Make) -> None:
    with pytest.raises(
        BundleError, match=r"global time 0\.8/0\.1/0\.1, the evaluation asks for global time 0\.7/0\.1/0\.2"
    ):
        run(evaluate_settings(split=SplitSettings(train=0.7)))
    with pytest.raises(BundleError, match="asks for leave last out: it may have learned"):
        run(evaluate_settings(split=SplitSettings(kind=SplitKind.leave_last_out)))


def rewrite(home: Path, **changes: object) -> None:
    state = find_bundle(home / "bundles", "latest") / "state.json"
    draft = decode_draft(state.read_bytes())
    manifest = msgspec.structs.replace(draft.manifest, **changes)
    state.write_bytes(encode_draft(Draft(state=draft.state, manifest=manifest)))


def test_a_bundle_that_does_not_say_what_it_learned_from_is_refused(home: Path, evaluate_settings: Make) -> None:
    rewrite(home, origin={})
    with pytest.raises(BundleError, match="does not say what it was trained on"):
        run(evaluate_settings())


def test_a_bundle_of_other_tables_is_refused(home: Path, evaluate_settings: Make) -> None:
    rewrite(home, dataset_fingerprint="0" * 64)
    with pytest.raises(BundleError, match="was made of tables ml-100k with fingerprint 000000000000"):
        run(evaluate_settings())


def test_an_unknown_bundle_lists_what_is_there(home: Path, evaluate_settings: Make) -> None:
    there = find_bundle(home / "bundles", "latest").name
    with pytest.raises(BundleError, match=f"no bundle 'nope' in .*; there are: {there}"):
        run(evaluate_settings(bundle="nope"))


def test_the_engine_is_asked_with_what_was_known_at_the_boundary_and_no_more(
    ml100k_tables: Path, tmp_path: Path
) -> None:
    from playbill.release.roads import fill

    dataset = open_dataset(ml100k_tables, FeatureSettings(), SplitSettings())
    asked = ask(dataset, "test")
    with Store.open(tmp_path / "state") as store:
        fill(store, ml100k_tables, dataset, asked)
        profiles = store.profiles([dataset.user_ids[p] for p in asked.person])
    boundary = dataset.split.valid_until_us
    names = dataset.items["item_id"].to_numpy()
    for row, profile in enumerate(profiles):
        assert profile is not None
        _, item = asked.histories(row, row + 1)
        assert profile.num_events == len(item)
        assert [e.item_id for e in profile.history] == names[item - 1].tolist()[-256:]
        assert all(e.at < boundary for e in profile.history)
        assert sorted(profile.seen) == sorted(set(names[item - 1].tolist()))
    assert sum(p.num_events for p in profiles if p) == int(np.diff(asked.queries.seen_indptr)[asked.rows].sum())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ks": []}, "ks must be"),
        ({"ks": [0]}, "ks must be"),
        ({"resamples": 10}, "resamples must be >= 100"),
        ({"level": 1.0}, "level must lie"),
        ({"ks": [5]}, "looks deeper"),
        ({"rivals": {"tune_for": "auc_at_10"}}, "is not a metric"),
        ({"rivals": {"ease_l2": []}}, "rivals.ease_l2 lists nothing"),
    ],
)
def test_settings_without_sense_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rivals = wrong.pop("rivals", {})
        EvaluateSettings(rivals=RivalSettings(**rivals), **wrong)  # type: ignore[arg-type]  # wrong on purpose
