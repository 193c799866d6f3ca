"""`playbill tune` on MovieLens-100K: what it picks, that it goes on where it was stopped, and who takes its choices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.baselines.chosen import read_chosen
from playbill.baselines.ease import ease_neighbours
from playbill.baselines.fits import CutEase, prepare, score
from playbill.baselines.ials import read_ials
from playbill.baselines.neighbours import read_neighbours, score_histories
from playbill.baselines.popularity import read_scores
from playbill.bundle.open import open_bundle
from playbill.bundle.rungs import RETRIEVER_FILES
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import ConfigError, TrainingError
from playbill.features.settings import FeatureSettings
from playbill.measure.ranking import user_metrics
from playbill.release import rivals as rivals_module
from playbill.release import tuning
from playbill.release.contestants import rivals
from playbill.release.protocol import ask, log_before
from playbill.release.rival_settings import RivalSettings
from playbill.release.tune import run
from playbill.release.tune_settings import TuneSettings
from playbill.training.export import run as export
from playbill.training.settings import ExportSettings

SPLIT = SplitSettings(kind=SplitKind.leave_last_out)


@pytest.fixture(scope="module")
def settings(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneSettings:
    home = tmp_path_factory.mktemp("tune")
    (home / "tables").symlink_to(ml100k_tables.parent)
    few = RivalSettings(
        refine=0,
        half_life_days=[7.0, 30.0],
        knn_shrink=[20.0],
        knn_most=[200],
        knn_length=[50],
        knn_decay=[0.0, 1.0],
        order_window=[20],
        order_distance_power=[1.0],
        order_source_power=[0.7],
        order_target_power=[0.3],
        order_weight_power=[0.5, 1.0],
        order_smooth=[0.0],
        order_backward=[0.0],
        order_most=[200],
        order_decay=[1.0],
        ease_l2=[200.0, 1000.0],
        ials_factors=[16],
        ials_l2=[0.003],
        ials_alpha=[1.0],
        ials_rounds=4,
        model_length=[200],
    )
    return TuneSettings(home=str(home), split=SPLIT, rivals=few)


@pytest.fixture(scope="module")
def folder(settings: TuneSettings) -> Path:
    return run(settings)


def test_tuned_is_at_least_as_good_as_untuned_and_says_what_it_tried(settings: TuneSettings, folder: Path) -> None:
    chosen = read_chosen(folder)
    assert chosen is not None and chosen.completed
    assert list(chosen.baselines) == ["popularity", "trending", "item_knn", "order_knn", "ease", "ials"]
    dataset = open_dataset(Path(settings.home) / "tables" / "ml-100k", FeatureSettings(), SPLIT)
    asked, log = ask(dataset, "valid"), log_before(dataset, "valid")
    untuned = {"order_knn": {"weight_power": 1.0}, "ease": {"l2": 200.0}, "item_knn": {"decay": 0.0}}
    for rival in rivals(settings.rivals, dataset.spec.num_items)[0]:
        baseline = chosen.baselines[rival.name]
        if rival.name not in untuned:
            continue
        tries = msgspec.json.decode((folder / f"{rival.name}.json").read_bytes(), type=tuning.Tuned).tries
        assert len(tries) == baseline.tries and baseline.figure == max(t.figure for t in tries)
        # the first try by hand: fitted on the training part, asked about validation, the whole catalogue, no repeats
        choice = baseline.choice | untuned[rival.name]
        lists = tuning.lists_of(rival, prepare(rival.name, log)(choice), log, asked, 10)
        figure = float(user_metrics(lists, asked.targets, [10], log.num_items)["ndcg_at_10"].mean())
        assert figure <= baseline.figure
        assert figure in [pytest.approx(t.figure) for t in tries]
    assert "weight_power 0.5: best of 2 on validation" in chosen.baselines["order_knn"].about


def test_the_files_are_fits_on_all_before_the_test_part(settings: TuneSettings, folder: Path) -> None:
    dataset = open_dataset(Path(settings.home) / "tables" / "ml-100k", FeatureSettings(), SPLIT)
    asked, log, chosen = ask(dataset, "test"), log_before(dataset, "test"), read_chosen(folder)
    assert chosen is not None
    indptr, item = asked.histories(0, 50)
    for name, baseline in chosen.baselines.items():
        fitted = prepare(name, log)(baseline.choice)
        if isinstance(fitted, CutEase):
            fitted = ease_neighbours(fitted.ease, settings.rivals.ease_most, 200)
        mine = score(fitted, indptr, item)
        if baseline.file == "ials.npz":
            read = read_ials(folder / baseline.file)
            for row in range(50):
                known = item[indptr[row] : indptr[row + 1]][::-1]
                newest = known[np.sort(np.unique(known, return_index=True)[1])][: read.length]
                np.testing.assert_allclose(read.item_factors[1:] @ read.person(newest), mine[row, 1:], atol=1e-4)
        elif baseline.file.endswith(".npz"):
            theirs = score_histories(read_neighbours(folder / baseline.file), indptr, item)
            np.testing.assert_allclose(theirs[:, 1:], mine[:, 1:], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(read_scores(folder / baseline.file), mine[0])


def test_nothing_changed_is_up_to_date_and_a_stopped_run_goes_on(
    settings: TuneSettings, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "run.json").read_bytes()
    assert run(settings) == folder and "up to date" in capsys.readouterr().out
    assert (folder / "run.json").read_bytes() == before
    other = dataclasses.replace(settings, run="stopped")
    asked: list[str] = []
    real = tuning.lists_of

    def stop(rival: object, *rest: object) -> np.ndarray:
        asked.append(rival.name)  # type: ignore[attr-defined]  # a Rival
        if asked.count("order_knn") == 2:
            raise KeyboardInterrupt
        return real(rival, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(tuning, "lists_of", stop)
    with pytest.raises(KeyboardInterrupt):
        run(other)
    half = read_chosen(Path(other.home) / "runs" / "stopped")
    assert half is not None and not half.completed
    asked.clear()
    asked.append("order_knn")  # the first try was written down: one more, not two
    monkeypatch.setattr(tuning, "lists_of", lambda rival, *rest: asked.append(rival.name) or real(rival, *rest))
    done = read_chosen(run(other))
    whole = read_chosen(folder)
    assert done is not None and whole is not None and done.completed
    assert asked.count("order_knn") == 2 and "item_knn" not in asked and asked.count("ease") == 2
    assert {n: b.choice for n, b in done.baselines.items()} == {n: b.choice for n, b in whole.baselines.items()}


def test_an_evaluation_takes_the_choices_of_the_run(
    settings: TuneSettings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(Path(settings.home) / "tables" / "ml-100k", FeatureSettings(), SPLIT)
    asked = ask(dataset, "test")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the choices are there, so nothing is searched")

    monkeypatch.setattr(tuning, "search", never)
    roads, _ = rivals_module.rival_roads(dataset, asked, settings.rivals, 10, tmp_path, lambda *_: None, folder)
    chosen = read_chosen(folder)
    assert chosen is not None
    assert {r.name: r.about for r in roads} == {n: b.about for n, b in chosen.baselines.items()}
    with pytest.raises(AssertionError, match="nothing is searched"):  # of other settings they are not taken
        other = dataclasses.replace(settings.rivals, tune_for="recall_at_10")
        rivals_module.rival_roads(dataset, asked, other, 10, tmp_path, lambda *_: None, folder)


def test_export_carries_the_run_and_says_so(settings: TuneSettings, folder: Path) -> None:
    path = export(ExportSettings(home=settings.home, split=SPLIT))
    bundle = open_bundle(path, require_sealed=False)
    assert bundle.manifest.retrievers == RETRIEVER_FILES | {"ease": "ease.npz", "ials": "ials.npz"}
    assert bundle.manifest.origin["baselines_run"] == "ml-100k-baselines"
    for name in ("transitions.npz", "ease.npz", "ials.npz", "popularity.npy"):
        assert bundle.file(name).read_bytes() == (folder / name).read_bytes()
    # a bundle of another split does not get what was tuned on this one
    other = open_bundle(export(ExportSettings(home=settings.home)), require_sealed=False)
    assert other.manifest.retrievers == RETRIEVER_FILES and "baselines_run" not in other.manifest.origin
    with pytest.raises(TrainingError, match="was tuned on another split than this bundle's"):
        export(ExportSettings(home=settings.home, baselines_run="ml-100k-baselines"))
    with pytest.raises(TrainingError, match="no finished run of `playbill tune` in nope"):
        export(ExportSettings(home=settings.home, split=SPLIT, baselines_run="nope"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"refine": -1}, "rivals.refine must be >= 0"),
        ({"most_tries": 0}, "rivals.most_tries must be >= 1"),
        ({"order_weight_power": [0.0]}, "rivals.order_weight_power must hold values above 0"),
        ({"knn_shrink": [-1.0]}, "rivals.knn_shrink must hold values >= 0"),
        ({"ials_alpha": []}, "rivals.ials_alpha lists nothing"),
    ],
)
def test_settings_without_sense_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RivalSettings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
