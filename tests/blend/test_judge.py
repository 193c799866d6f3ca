"""A judge that can say no: members with known strengths, and people who are real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.baselines.fits import prepare, score
from playbill.blend.judge import Judging, blend_lists, judge, top
from playbill.blend.lists import Lists, best_items, from_arrays
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import BlendError
from playbill.features.settings import FeatureSettings
from playbill.measure.ranking import Targets, targets_from_pairs, user_metrics
from playbill.release.protocol import ask, log_before

HOW = Judging(depth=50, metric="ndcg_at_10", ks=[10], folds=4, l2=[0.001, 0.1], resamples=200, level=0.95, seed=0)


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def films(ml100k_tables: Path) -> Dataset:
    return open_dataset(ml100k_tables, FeatureSettings(), SplitSettings(kind=SplitKind.leave_last_out))


def members_at(films: Dataset, part: str) -> tuple[dict[str, Lists], Targets]:
    """Return transitions and EASE learned from what comes before the part, for everybody asked about it."""
    asked, log = ask(films, part), log_before(films, part)
    numbers = dict(
        window=20, distance_power=1.0, backward=0.0, source_power=0.3, target_power=0.3, weight_power=1.0, smooth=0.0,
        most=200, decay=1.0, length=200,
    )  # fmt: skip
    found = {}
    for name, choice in (("order_knn", numbers), ("ease", {"l2": 200.0, "length": 10_000, "most": 500})):
        indptr, had = asked.histories(0, len(asked))
        scores = score(prepare(name, log)(choice), indptr, had)
        item, points = [], []
        for row in range(len(asked)):
            allowed = scores[row] > 0
            allowed[had[indptr[row] : indptr[row + 1]]] = False
            item.append(best_items(scores[row], allowed, HOW.depth))
            points.append(scores[row][item[-1]])
        found[name] = from_arrays(item, points)
    return found, asked.targets


def test_on_real_people_a_blend_beats_its_best_member_and_holds_on_the_test_part(films: Dataset) -> None:
    members, targets = members_at(films, "valid")
    blend, judged = judge("b", members, targets, films.spec.num_items, HOW, quiet)
    assert judged.people == 943 and judged.best_member == "order_knn"
    chosen = next(f for f in judged.forms if f.name == judged.chosen)
    # transitions say what comes next, EASE what goes with all that was ever had
    assert judged.better and chosen.less_best["ndcg_at_10"].value > 0.001
    assert judged.chosen != "reciprocal rank fusion" and blend.alone == ""
    # the weights were found on validation; the members of the test part have learned more, on other scales
    members, targets = members_at(films, "test")
    blended = user_metrics(blend_lists(blend, members, films.spec.num_items, 10), targets, [10], films.spec.num_items)
    alone = user_metrics(top(members["order_knn"], 10), targets, [10], films.spec.num_items)
    assert blended["ndcg_at_10"].mean() > alone["ndcg_at_10"].mean()


def test_members_that_know_different_people_are_worth_more_together() -> None:
    """One member finds the target of every even person, the other of every odd one, each certain where it knows."""
    draw = np.random.default_rng(0)
    people, items = 400, 300
    target = draw.integers(1, items + 1, people)
    made = {}
    for number, name in enumerate(("even", "odd")):
        item, points = [], []
        for person in range(people):
            rest = draw.permutation(np.delete(np.arange(1, items + 1), target[person] - 1))[:29]
            knows = person % 2 == number
            item.append(np.concatenate([[target[person]], rest]) if knows else rest)
            high = 9.0 if knows else 1.1
            points.append(np.concatenate([[high], np.linspace(1, 0, len(item[-1]) - 1)]))
        made[name] = from_arrays(item, points)
    targets = targets_from_pairs(np.arange(people), target, people)
    blend, judged = judge("b", made, targets, items, HOW, quiet)
    best = next(f for f in judged.forms if f.name == judged.chosen)
    assert judged.better and judged.clearly
    assert best.metrics["hit_rate_at_10"].value > 0.95  # each member alone: about one half
    assert {m.name: round(m.metrics["hit_rate_at_10"].value, 1) for m in judged.members} == {"even": 0.5, "odd": 0.5}
    found = user_metrics(blend_lists(blend, made, items, 10), targets, [10], items)
    assert found["ndcg_at_10"].mean() > 0.95


def test_where_no_blend_is_as_good_the_best_member_is_kept_alone_and_said() -> None:
    """Forty people and three members of noise: the fit takes some of it for a signal, and other people pay for it."""
    draw = np.random.default_rng(2)
    people, items = 40, 40
    target = draw.integers(1, items + 1, people)
    good: list[np.ndarray] = []
    noise: list[list[np.ndarray]] = [[], [], []]
    for person in range(people):
        order = draw.permutation(np.delete(np.arange(1, items + 1), target[person] - 1))
        place = int(draw.integers(0, 6))
        good.append(np.concatenate([order[:place], [target[person]], order[place:]]))
        for rows in noise:
            rows.append(draw.permutation(np.arange(1, items + 1)))
    points = [np.linspace(1, 0, items)] * people
    made = {"good": from_arrays(good, points)} | {f"noise{n}": from_arrays(r, points) for n, r in enumerate(noise)}
    targets = targets_from_pairs(np.arange(people), target, people)
    blend, judged = judge("b", made, targets, items, HOW, quiet)
    best = max(f.less_best["ndcg_at_10"].value for f in judged.forms)
    assert best < -0.01 and not judged.better and not judged.clearly
    assert judged.chosen == judged.best_member == blend.alone == "good" and blend.members == ["good"]
    assert (blend_lists(blend, made, items, 10) == np.stack(good)[:, :10]).all()


def test_one_member_is_its_own_blend() -> None:
    lists = from_arrays([np.array([3, 1]), np.array([2])] * 4, [np.array([2.0, 1.0]), np.array([1.0])] * 4)
    targets = targets_from_pairs(np.arange(8), np.array([1, 2] * 4), 8)
    blend, judged = judge("b", {"only": lists}, targets, 5, HOW, quiet)
    assert judged.forms == [] and judged.chosen == "only" and blend.alone == ""
    assert blend_lists(blend, {"only": lists}, 5, 3).tolist()[:2] == [[3, 1, -1], [2, -1, -1]]


def test_too_few_people_and_nothing_proposed_are_said() -> None:
    lists = from_arrays([np.array([3, 1])] * 4, [np.array([2.0, 1.0])] * 4)
    targets = targets_from_pairs(np.arange(4), np.array([5] * 4), 4)
    with pytest.raises(BlendError, match="no member proposed anything that anybody went on to do"):
        judge("b", {"a": lists, "b": lists}, targets, 5, HOW, quiet)
    with pytest.raises(BlendError, match="3 people can be learned from, fewer than 4 folds"):
        judge("b", {"a": lists}, targets.take(np.arange(3)), 5, HOW, quiet)
