"""Hillstrom's trial in two halves: rules of few parameters, one of them chosen on the first, judged once on the second.

Of purchases 99 % are none, so effects are learned, and the rule is chosen, on visits, each worth what a visit spent on
average in the first half; what is reported of the second half is what was spent. Rules rank people and arms by their
effect for what it costs; the budget pays for the best 30 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from playbill.campaign.budget import plan
from playbill.measure.uplift.trial import Trial, make_trial
from playbill.measure.uplift.value import at_random, contributions, everybody, policy_values

FOLDS = 5
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # x, arm, outcome, asked -> [n, 2]


def columns(facts: np.ndarray) -> np.ndarray:
    """Return [n, F] float64: facts with few values as one column a value, the others and their logs."""
    found = []
    for column in facts.T:
        values = np.unique(column)
        if len(values) <= 4:
            found += [(column == value).astype(np.float64) for value in values[1:]]
        else:
            found += [column, np.log1p(column)]
    return np.stack(found, 1)


def doubly_robust(model: Any) -> Rule:
    """Return a rule by one regression an arm on doubly robust pseudo-outcomes of mailing against not mailing."""

    def learn(x: np.ndarray, arm: np.ndarray, outcome: np.ndarray, asked: np.ndarray) -> np.ndarray:
        expected = np.zeros((len(x), 3))
        fold = np.random.default_rng(0).permutation(len(x)) % 2
        for number in range(2):
            for a in range(3):
                rest = (fold != number) & (arm == a)
                expected[fold == number, a] = _responses(x[rest], outcome[rest], x[fold == number])
        told = expected + (arm[:, None] == np.arange(3)) * 3 * (outcome - expected[np.arange(len(x)), arm])[:, None]
        return np.stack([model.fit(x, told[:, a] - told[:, 0]).predict(asked) for a in (1, 2)], 1)

    return learn


def transformed(x: np.ndarray, arm: np.ndarray, outcome: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Class transformation, an arm against none: P(visit if mailed, or none if not) - 1/2, doubled (Jaskowski 2012)."""
    found = []
    for a in (1, 2):
        mine = (arm == a) | (arm == 0)
        same = np.where(arm[mine] == a, outcome[mine], 1 - outcome[mine])
        found.append(2 * _responses(x[mine], same, asked) - 1)
    return np.stack(found, 1)


def by_arm(x: np.ndarray, arm: np.ndarray, outcome: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Logistic regression an arm, their differences from none."""
    said = [_responses(x[arm == a], outcome[arm == a], asked) for a in range(3)]
    return np.stack([said[1] - said[0], said[2] - said[0]], 1)


def _responses(x: np.ndarray, outcome: np.ndarray, asked: np.ndarray) -> np.ndarray:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    found: np.ndarray = model.fit(x, outcome > 0).predict_proba(asked)[:, 1]
    return found


RULES: dict[str, Rule] = {
    "tree of 4 leaves": doubly_robust(DecisionTreeRegressor(max_leaf_nodes=4, min_samples_leaf=500, random_state=0)),
    "tree of 8 leaves": doubly_robust(DecisionTreeRegressor(max_leaf_nodes=8, min_samples_leaf=300, random_state=0)),
    "forest": doubly_robust(RandomForestRegressor(200, max_leaf_nodes=24, min_samples_leaf=200, max_features=0.4,
                                                  n_jobs=1, random_state=0)),  # fmt: skip
    "ridge": doubly_robust(make_pipeline(StandardScaler(), Ridge(3000.0))),
    "class transformation": transformed, "logistic by arm": by_arm,
}  # fmt: skip


def halves(
    facts: np.ndarray, arm: np.ndarray, visited: np.ndarray, spent: np.ndarray, cost: float, share: float, seed: int = 0
) -> dict[str, Any]:
    """Return what was chosen on one half of the people, and what it and its rivals are worth on the other.

    Args:
        facts: [n, F]; arm: [n] 0 none, 1 men's mail, 2 women's; visited: [n] bool; spent: [n] money.
        cost: of a mail; share: of the people whose mails the budget pays for.
    """
    x, visits = columns(facts), visited.astype(np.float64)
    first = np.random.default_rng(seed).permutation(len(arm)) % 2 == 0
    a_visit = float(spent[first].sum() / visits[first].sum())
    costs = np.array([0.0, cost, cost])
    one = _Half(x[first], arm[first], visits[first], costs, share, a_visit)
    judged = {name: one.crossed(rule) for name, rule in RULES.items()}
    judged |= {"mens at random": one.at_random(1), "womens at random": one.at_random(2)}
    values, pairs = policy_values({n: contributions(one.trial(), p, costs, worth=a_visit) for n, p in judged.items()})
    chosen = max(RULES, key=lambda name: values[name].value)
    arm_ = arm[~first]
    plans = {f"chosen: {chosen}": one.planned(RULES[chosen](one.x, one.arm, one.visits, x[~first]))}
    n = len(arm_)
    plans |= {
        "mens to 30 % at random": at_random(n, 3, 1, share), "womens to 30 % at random": at_random(n, 3, 2, share),
        "mens to all (over budget)": everybody(n, 3, 1), "nobody": everybody(n, 3, 0),
    }  # fmt: skip
    found = {
        what: _reported(make_trial(["none", "mens", "womens"], arm_, np.full(3, 1 / 3), outcome), plans, price)
        for what, outcome, price in (
            ("net value", spent[~first], costs), ("visits", visits[~first], 0 * costs),
        )
    }  # fmt: skip
    return {
        "customers of each half": [int(first.sum()), n], "a visit is worth": a_visit, "chosen": chosen,
        "first half, net value by visits": {name: [i.value, i.low, i.high] for name, i in values.items()},
        "first half, chosen less mens at random": [
            (i := pairs[chosen, "mens at random"]).value, i.low, i.high,
        ],
        "second half": found,
    }  # fmt: skip


class _Half:
    """The half that teaches: x [n, F], arm [n], visits [n]."""

    def __init__(
        self, x: np.ndarray, arm: np.ndarray, visits: np.ndarray, costs: np.ndarray, share: float, a_visit: float
    ) -> None:
        self.x, self.arm, self.visits, self.costs, self.share, self.a_visit = x, arm, visits, costs, share, a_visit

    def trial(self) -> Trial:
        return make_trial(["none", "mens", "womens"], self.arm, np.full(3, 1 / 3), self.visits)

    def at_random(self, arm: int) -> np.ndarray:
        return at_random(len(self.arm), 3, arm, self.share)

    def crossed(self, rule: Rule) -> np.ndarray:
        """Return the plan [n, 3] of a rule that never saw a person's own outcome."""
        fold = np.random.default_rng(1).permutation(len(self.arm)) % FOLDS
        found = np.zeros((len(self.arm), 3))
        for number in range(FOLDS):
            rest, out = fold != number, fold == number
            found[out] = self.planned(rule(self.x[rest], self.arm[rest], self.visits[rest], self.x[out]))
        return found

    def planned(self, effect: np.ndarray) -> np.ndarray:
        """Return the plan [n, 3] that these effects on visits [n, 2] ask for within the budget."""
        # rules of few leaves tie: who is first then is drawn, not the order of the file
        tied = np.random.default_rng(2).normal(0, 1e-9, effect.shape)
        profit = np.concatenate([np.zeros((len(effect), 1)), (effect + tied) * self.a_visit - self.costs[1:]], 1)
        cost = np.broadcast_to(self.costs, profit.shape)
        found: np.ndarray = np.eye(3)[plan(profit, cost, self.share * self.costs[1] * len(effect)).level]
        return found


def _reported(trial: Trial, plans: dict[str, np.ndarray], costs: np.ndarray) -> dict[str, Any]:
    values, pairs = policy_values({name: contributions(trial, p, costs) for name, p in plans.items()})
    first = next(iter(plans))
    return {
        name: {"value": [i.value, i.low, i.high], "mailed": float(1 - plans[name][:, 0].mean())}
        | ({"the chosen's less this": [(d := pairs[first, name]).value, d.low, d.high]} if name != first else {})
        for name, i in values.items()
    }
