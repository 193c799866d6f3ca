"""`playbill blend` on real people: members tuned, fitted, judged, exported, and served as they were measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from playbill.blend.judge import blend_lists
from playbill.blend.model import Blend, read_blend, write_blend
from playbill.blend.scores import read_lists, read_member
from playbill.bundle.open import open_bundle
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.errors import BlendError, ConfigError
from playbill.features.settings import FeatureSettings
from playbill.release import blending, tune
from playbill.release.blend_report import BlendReport
from playbill.release.blend_settings import BlendSettings
from playbill.release.members import part_of
from playbill.release.roads import engine_road
from playbill.release.settings import RivalSettings
from playbill.release.tune_settings import TuneSettings
from playbill.training.export import run as export
from playbill.training.settings import ExportSettings

MEMBERS = ["transitions", "item_knn", "ease", "popularity"]


@pytest.fixture(scope="module")
def blended_home(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory, one_choice: RivalSettings) -> Path:
    """A home with tuned baselines and a blend of them."""
    home = tmp_path_factory.mktemp("blending")
    (home / "tables").symlink_to(ml100k_tables.parent)
    tune.run(TuneSettings(home=str(home), rivals=one_choice))
    blending.run(settings_of(home, one_choice))
    return home


@pytest.fixture(scope="module")
def one_choice() -> RivalSettings:
    """A single choice each, so that nothing is searched."""
    return RivalSettings(
        refine=0, half_life_days=[30.0], knn_shrink=[20.0], knn_weight_power=[1.0], knn_most=[50], knn_decay=[1.0],
        knn_length=[50], order_window=[20], order_distance_power=[1.0], order_source_power=[0.3],
        order_target_power=[0.3], order_weight_power=[1.0], order_smooth=[0.0], order_backward=[0.0],
        order_most=[200], order_decay=[1.0], order_length=[50], ease_l2=[200.0], ials_factors=[8], ials_l2=[0.003],
        ials_alpha=[1.0], ials_rounds=2, ease_most=100,
    )  # fmt: skip


def settings_of(home: Path, rivals: RivalSettings, **changes: Any) -> BlendSettings:
    given = {"home": str(home), "bundle": None, "members": MEMBERS, "rivals": rivals, "resamples": 100, "folds": 3}
    return BlendSettings(**{**given, **changes})


@pytest.fixture
def home(blended_home: Path, tmp_path: Path) -> Path:
    shutil.copytree(blended_home, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def report_of(home: Path, name: str = "blend") -> BlendReport:
    return msgspec.json.decode((home / "blends" / name / "report.json").read_bytes(), type=BlendReport)


def test_what_is_written_and_that_it_is_not_done_twice(
    home: Path, one_choice: RivalSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = home / "blends" / "blend", report_of(home)
    blend = read_blend(folder / "blend.json")
    assert report.judged.people > 50 and {m.name for m in report.judged.members} == set(MEMBERS)
    assert report.said == blend.said and report.weights == blend.weights
    assert blend.choices["ease"]["l2"] == 200 and set(blend.choices) == set(blend.members)
    # the fold and the test part, learned from what came before each
    assert read_member(folder / "scores" / "ease").learned["valid"].parts == ["train"]
    assert read_member(folder / "scores" / "ease").learned["test"].parts == ["train", "valid"]
    assert {r.name for r in report.test} == {*MEMBERS, "blend"} and report.test_people > 50
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    best = max(report.judged.forms, key=lambda f: f.metrics["ndcg_at_10"].value)
    if report.judged.better:
        assert best.less_best["ndcg_at_10"].value >= 0 and "better than its best member" in report.said
    else:
        assert best.less_best["ndcg_at_10"].value < 0 and "is kept alone" in report.said
    before = (folder / "blend.json").stat().st_mtime_ns
    capsys.readouterr()
    blending.run(settings_of(home, one_choice))
    assert "nothing changed" in capsys.readouterr().out and (folder / "blend.json").stat().st_mtime_ns == before


def test_somebody_elses_scores_join_and_are_rejected_when_they_saw_the_fold(
    home: Path, one_choice: RivalSettings, tmp_path: Path
) -> None:
    peer = tmp_path / "peer"
    shutil.copytree(home / "blends" / "blend" / "scores" / "ease", peer)
    file = peer / "member.json"
    told = msgspec.json.decode(file.read_bytes()) | {"name": "sasrec"}
    file.write_bytes(msgspec.json.encode(told))
    joined = settings_of(home, one_choice, name="joined", members=["transitions"], scores=[str(peer)])
    blending.run(joined)
    report = report_of(home, "joined")
    assert [m.name for m in report.members] == ["transitions", "sasrec"]
    ease = {r.name: r for r in report_of(home).judged.members}["ease"].metrics["ndcg_at_10"]
    assert {r.name: r for r in report.judged.members}["sasrec"].metrics["ndcg_at_10"] == ease
    # such a blend can be measured, and no bundle can serve it
    if "sasrec" in read_blend(home / "blends" / "joined" / "blend.json").members:
        with pytest.raises(BlendError, match="has the member sasrec, and this bundle carries no such retriever"):
            export(ExportSettings(home=str(home), blend="joined"))
    told["learned"]["valid"]["parts"] = ["train", "valid"]
    file.write_bytes(msgspec.json.encode(told))
    with pytest.raises(BlendError, match="member sasrec .*it has seen valid, and is asked about valid"):
        blending.run(joined)
    with pytest.raises(BlendError, match="a member named sasrec is there already|it has seen valid"):
        blending.run(
            settings_of(home, one_choice, name="twice", members=["transitions"], scores=[str(peer), str(peer)])
        )


def test_what_cannot_be_asked_for_is_said(home: Path, one_choice: RivalSettings) -> None:
    with pytest.raises(ConfigError, match="no member 'bert'; there are tower, item_knn, transitions"):
        blending.run(settings_of(home, one_choice, members=["bert"]))
    for wrong, said in (
        ({"metric": "ndcg_at_7"}, "ks must be cut-offs"),
        ({"depth": 5}, "depth must be at least the longest cut-off, 20, got 5"),
        ({"folds": 1}, "folds must be >= 2"),
        ({"l2": []}, "l2 must list penalties"),
        ({"name": "../x"}, "name must be letters"),
    ):
        with pytest.raises(ConfigError, match=said):
            settings_of(home, one_choice, **wrong)
    with pytest.raises(BlendError, match="no blend at .*write one with `playbill blend`"):
        export(ExportSettings(home=str(home), blend="never"))


def test_served_as_it_was_measured(home: Path, ml100k_tables: Path) -> None:
    """The engine on the exported bundle gives the lists that the blend was measured by."""
    folder = home / "blends" / "blend"
    whole = read_blend(folder / "blend.json")
    # whatever the verdict on these few people was: all members, with weights of a kind that a fit gives
    features = ["standard", "share", "rank", "listed"]
    weights = {m: dict(zip(features, w, strict=True)) for m, w in zip(MEMBERS, WEIGHTS, strict=True)}
    choices = {m: read_member_choice(home, m) for m in MEMBERS}
    blend = Blend(
        name="blend", members=MEMBERS, depth=100, features=features, weights=weights, choices=choices,
        tables_fingerprint=whole.tables_fingerprint,
    )  # fmt: skip
    (folder / "blend.json").write_bytes(write_blend(blend))
    path = export(ExportSettings(home=str(home), blend="blend"))
    bundle = open_bundle(path, require_sealed=False)
    assert bundle.manifest.origin["blend"] == "blend" and bundle.has("blend.json")
    tables = home / "tables" / "ml-100k"
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings())
    part = part_of(dataset, "test")
    items = dataset.vocabularies["item"]
    members = {m: read_lists(folder / "scores" / m, "test", part.who, items, 100) for m in MEMBERS}
    expected = blend_lists(blend, members, dataset.spec.num_items, 10)
    road = engine_road(bundle, tables, dataset, part.asked, 10, "served", "served", lambda done, total: None)
    assert road.rungs["item_knn"] == len(part.who)
    same = (road.lists[part.rows] == expected).all(axis=1)
    assert same.mean() > 0.97  # neighbours whose scores differ by rounding may change places
    changed = msgspec.structs.replace(blend, choices=choices | {"ease": {"l2": 1.0}})
    (folder / "blend.json").write_bytes(write_blend(changed))
    with pytest.raises(BlendError, match="was fitted with ease at .*'l2': 1.0.*run `playbill blend` again"):
        export(ExportSettings(home=str(home), blend="blend"))


WEIGHTS = [(0.3, 0.5, 0.1, 0.2), (0.2, 0.1, 0.2, 0.0), (0.3, 0.1, 0.2, 0.1), (-0.3, 0.0, -0.1, 0.3)]


def read_member_choice(home: Path, member: str) -> dict[str, float]:
    from playbill.baselines.chosen import read_chosen

    chosen = read_chosen(home / "runs" / "ml-100k-baselines")
    assert chosen is not None
    return chosen.baselines[{"transitions": "order_knn"}.get(member, member)].choice
