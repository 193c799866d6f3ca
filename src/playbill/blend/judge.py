"""Is a blend worth it? Several forms are fitted, each judged on people that it did not learn from.

The people of the fold are cut into `folds` parts; each part is ordered by weights fitted on the others. The form with
the best mean goes on, fitted once more on all. Where even that one is below the best member, the member is kept alone.
The best member is picked on the very people on which it is compared, which favours the member; the form is picked so
too, out of a handful, which favours the form a little: figures of a part that took no part in this are the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from playbill.blend.fit import choices, fit
from playbill.blend.formula import Candidates, blended, candidates, order
from playbill.blend.lists import Lists
from playbill.blend.model import Blend, apply, by_name, single
from playbill.errors import BlendError
from playbill.measure.bootstrap import Interval, compare, intervals
from playbill.measure.ranking import NO_ITEM, Targets, user_metrics

FORMS: list[tuple[str, list[str]]] = [
    ("reciprocal rank fusion", ["reciprocal"]),  # nothing is fitted: what a fit must be worth more than
    ("standard scores", ["standard"]),
    ("scores and ranks", ["standard", "share", "rank", "listed"]),
]
UNFITTED = FORMS[0][0]

Progress = Callable[[str, int, int], None]  # what, done, of how many


class FormReport(msgspec.Struct, kw_only=True):
    """One way to blend, or one member; `less_best` is this less the best member on the same people."""

    name: str
    l2: float = 0.0
    metrics: dict[str, Interval] = {}
    less_best: dict[str, Interval] = {}


class Judged(msgspec.Struct, kw_only=True):
    """What came out on the fold.

    Attributes:
        people: asked about the fold.
        proposed: share of the targets that any member proposed: no blend can find the others.
        members, forms: measured on people that no weights were fitted on.
        best_member, chosen: by name.
        better: whether the chosen form's mean is at least the best member's.
        clearly: whether the whole interval of the difference lies above 0.
    """

    people: int
    proposed: float
    members: list[FormReport]
    forms: list[FormReport]
    best_member: str
    chosen: str
    better: bool
    clearly: bool


@dataclass(slots=True, kw_only=True)
class Judging:
    """How to judge; see `release.settings.BlendSettings`, whose fields these are."""

    depth: int
    metric: str
    ks: list[int]
    folds: int
    l2: list[float]
    resamples: int
    level: float
    seed: int


def judge(
    name: str,
    members: dict[str, Lists],
    targets: Targets,
    num_items: int,
    how: Judging,
    progress: Progress,
) -> tuple[Blend, Judged]:
    """Return the blend to use and what it was judged by.

    Args:
        name: of the blend.
        members: lists by member, of people that none of them has learned from.
        targets: what the same people went on to do.
        num_items: N.
    Raises:
        BlendError: nobody to learn from, or fewer people than folds.
    """
    if len(targets) < max(2, how.folds):
        raise BlendError(f"{len(targets)} people can be learned from, fewer than {how.folds} folds; blend more people")
    names = list(members)
    cut = {m: lists.first(how.depth) for m, lists in members.items()}
    measured = {m: user_metrics(top(lists, max(how.ks)), targets, how.ks, num_items) for m, lists in cut.items()}
    best = max(names, key=lambda m: float(measured[m][how.metric].mean()))

    def report(label: str, found: dict[str, np.ndarray], l2: float = 0.0) -> FormReport:
        return FormReport(
            name=label,
            l2=l2,
            metrics=intervals(found, resamples=how.resamples, seed=how.seed, level=how.level),
            less_best=compare(found, measured[best], resamples=how.resamples, seed=how.seed, level=how.level),
        )

    fold = np.random.default_rng(how.seed).permutation(len(targets)) % how.folds
    forms: list[FormReport] = []
    best_form, best_weights, best_mean = FORMS[0], np.ones(len(names)), -1.0
    proposed = 0.0
    todo = sum(1 if form == UNFITTED else len(how.l2) for form, _ in FORMS) if len(names) > 1 else 0
    for form, features in FORMS if len(names) > 1 else []:
        found = candidates(list(cut.values()), features, num_items)
        proposed = _proposed(found, targets, num_items)
        tried: list[tuple[float, np.ndarray, dict[str, np.ndarray]]] = []
        for l2 in [0.0] if form == UNFITTED else how.l2:
            progress(form, len(forms), todo)
            if form == UNFITTED:
                weights = np.ones(len(names))
                score = blended(found, weights)
            else:
                weights, score = _crossed(found, targets, num_items, fold, l2)
            lists = top(order(found, score), max(how.ks))
            tried.append((l2, weights, user_metrics(lists, targets, how.ks, num_items)))
        l2, weights, metrics = max(tried, key=lambda t: float(t[2][how.metric].mean()))
        forms.append(report(form, metrics, l2))
        mean = float(metrics[how.metric].mean())
        if mean > best_mean:
            best_form, best_weights, best_mean = (form, features), weights, mean
    better = bool(forms) and best_mean >= float(measured[best][how.metric].mean())
    chosen = next((f for f in forms if f.name == best_form[0]), None)
    judged = Judged(
        people=len(targets),
        proposed=proposed
        if forms
        else _proposed(candidates(list(cut.values()), ["rank"], num_items), targets, num_items),
        members=[report(m, measured[m]) for m in names],
        forms=forms,
        best_member=best,
        chosen=best_form[0] if better else best,
        better=better,
        clearly=better and chosen is not None and chosen.less_best[how.metric].low > 0,
    )
    if not better:
        blend = msgspec.structs.replace(single(name, best, how.depth), alone=best if len(names) > 1 else "")
        return msgspec.structs.replace(blend, people=len(targets)), judged
    features = best_form[1]
    blend = Blend(
        name=name,
        members=names,
        depth=how.depth,
        features=features,
        weights=by_name(best_weights, names, features),
        people=len(targets),
    )
    return blend, judged


def blend_lists(blend: Blend, members: dict[str, Lists], num_items: int, k: int) -> np.ndarray:
    """Return [U, k] int64 blended lists, best first, padded with -1: the form in which rankings are measured.

    Args:
        members: lists by member, of the same U people; at least those that the blend names.
        num_items: N.
    """
    return top(apply(blend, members, num_items), k)


def top(lists: Lists, k: int) -> np.ndarray:
    """Return [Q, k] int64 the first k items of each list, padded with -1."""
    found = np.full((len(lists), k), NO_ITEM, np.int64)
    first = lists.first(k)
    query = np.repeat(np.arange(len(first)), first.lengths())
    found[query, np.arange(len(query)) - first.indptr[:-1][query]] = first.item
    return found


def _crossed(
    found: Candidates, targets: Targets, num_items: int, fold: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights fitted on everybody, and [M] scores by weights that were fitted on other people."""
    data = choices(found, targets, num_items)
    if not len(data):
        raise BlendError("no member proposed anything that anybody went on to do: there is nothing to fit")
    weights = fit(data, l2)
    score = np.empty(len(found.item))
    of_row = fold[found.query]
    for number in range(int(fold.max()) + 1):
        others = fit(data.take(fold[data.query] != number), l2, start=weights)
        given = blended(found, others)
        mine = of_row == number
        score[mine] = given[mine]
    return weights, score


def _proposed(found: Candidates, targets: Targets, num_items: int) -> float:
    width = num_items + 1
    wanted = np.repeat(np.arange(len(targets)), targets.counts()) * width + targets.item
    return float(np.isin(wanted, found.query * width + found.item).mean())
