"""Policies that learn while they show: see proof_creatives.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from creative_world import Impressions, informed, true_effects
from rich.progress import track
from scipy.special import expit

from playbill.creative.choice import CreativePolicy, centred, chances, draw
from playbill.creative.posterior import Posterior, combined, impressions, marginals, rewards
from playbill.measure.bootstrap import resampled_means
from playbill.training.creative.data import CreativeData
from playbill.training.creative.decisions import Decisions
from playbill.training.creative.module import CreativeModel, CreativeModule
from playbill.training.creative.prior import fit_prior, settle
from playbill.training.creative.scoring import less_mean, pair_features
from playbill.training.fit import fit, processes
from playbill.training.progress import Report
from playbill.training.settings import TrainSettings
from playbill.world.build import World

TRAIN_AT = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SPREAD = 0.5  # of Thompson sampling
TENTHS, QUARTERS = 10, 4
PULL_SD = 0.3  # how far single artworks are believed to differ: what the record of one is weighed by


@dataclass(slots=True)
class Stage:
    """Content, places, vectors and profiles by towers that know the first `share` of all impressions' time."""

    share: float
    data: CreativeData


class Contextual:
    """Thompson sampling over heads that are trained now and then, as an engine between bundles.

    Args:
        stages: in the order of time, the first no later than the first training; their decisions are not read.
        settings: of the training.
    """

    def __init__(self, seen: Impressions, stages: list[Stage], settings: TrainSettings) -> None:
        self.seen, self.stages, self.settings = seen, stages, settings
        self.data = stages[0].data
        self.model: CreativeModel | None = None
        self.prior: Posterior | None = None
        self.belief: tuple[Posterior, np.ndarray] | None = None
        self.own_sd = np.zeros(0)
        self.precision, self.information = np.zeros(0), np.zeros(0)

    def train(self, decisions: Decisions, share: float) -> None:
        """Learn heads and prior anew from decisions of known people, and forget what came since the last time."""
        self.data = next(stage.data for stage in reversed(self.stages) if stage.share <= share)
        data = replace(self.data, train=decisions, valid=decisions)
        with processes(self.settings):
            module = CreativeModule(data, self.settings)
            epochs = self.settings.model.max_epochs
            steps = epochs * module.steps_per_epoch
            fit(module, self.settings, epochs, Report("heads, live", module.size, steps), None, None)
            state = {k: v.detach().clone() for k, v in module.dmp.module.state_dict().items()}  # type: ignore[union-attr]
        model = CreativeModel(data, self.settings)
        model.load_state_dict(state)
        self.model = model.eval()
        self.own_sd = settle(self.model, data, self.settings.model).astype(np.float64)
        self.prior = fit_prior(self.model, data, self.settings.model.weight_sd)
        width = len(self.prior.mean)
        self.precision, self.information = np.zeros((width, width)), np.zeros(width)
        self.believe()

    def believe(self) -> None:
        """Take in all evidence so far."""
        assert self.prior is not None
        posterior = combined(self.prior, self.precision, self.information)
        self.belief = posterior, posterior.covariance()

    def choose(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return probabilities [n, E], and features [n, E, d] where there are any yet."""
        there = self.seen.there[rows]
        if self.model is None or self.belief is None:
            return there / there.sum(1, keepdims=True), None
        decisions = self.seen.decisions
        raw = pair_features(self.model.head, self.data.arrays, self.data.profiles, decisions, rows)
        phi = less_mean(raw, decisions.eligible[rows]).astype(np.float64)
        mean, sd = marginals(self.belief[0].mean, self.belief[1], phi)
        sd = np.hypot(sd, self.own_sd[np.maximum(decisions.eligible[rows], 0)])
        return chances(CreativePolicy(spread=SPREAD), mean, sd, there), phi

    def shown(self, rows: np.ndarray, phi: np.ndarray, chance: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Take in what was shown ([n] columns), and return its features as the posterior learns from them [n, d]."""
        assert self.model is not None and self.belief is not None
        decisions, at = self.seen.decisions, np.arange(len(rows))
        own: np.ndarray = centred(phi, chance)[at, column]
        person = torch.from_numpy(self.data.people[decisions.moment[rows]])
        with torch.no_grad():
            item, position = torch.from_numpy(decisions.item[rows]), torch.from_numpy(decisions.position[rows])
            title = self.model.title(person, item, position).double().numpy()
        score = own @ self.belief[0].mean
        added, known = impressions(own, expit(title + score), score, np.ones(len(rows)))
        self.precision, self.information = self.precision + added, self.information + known
        return own


def live(
    world: World, seen: Impressions, stages: list[Stage], settings: TrainSettings, late_days: int
) -> dict[str, Any]:
    """Return values by tenth and regret by quarter of every policy, clicks coming 0 to `late_days` days late."""
    rng = np.random.default_rng(1)
    decisions, n = seen.decisions, len(seen)
    day = seen.day[decisions.moment]
    borders = np.searchsorted(day, np.arange(day.max() + 2))
    uniform = rng.random((3, n))
    delay = rng.integers(0, late_days + 1, n) if late_days else np.zeros(n, np.int64)
    contextual = Contextual(seen, stages, settings)
    first = np.asarray(world.creatives.first, np.int64)
    record = np.zeros((2, first[-1]))  # clicks and impressions of each artwork under the policy that looks at records
    waiting: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    waiting_clicks: dict[int, list[np.ndarray]] = {}
    shown, clicked = np.zeros(n, np.int64), np.zeros(n, np.float32)
    value = {name: np.zeros(n) for name in ("single, live", "contextual")}
    train_at = [share * n for share in TRAIN_AT]
    known = seen.known
    for today in track(range(len(borders) - 1), description="days"):
        rows = np.arange(borders[today], borders[today + 1])
        if not len(rows):
            continue
        if train_at and rows[0] >= train_at[0]:
            # what is not over by now may still be answered
            past = np.flatnonzero(known[: rows[0]] & (day[: rows[0]] < today - late_days))
            if clicked[past].any():
                train_at.pop(0)
                own = replace(decisions, shown=shown, clicked=clicked)
                contextual.train(own.take(past), rows[0] / n)
                waiting = {}
        chance, phi = contextual.choose(rows)
        value["contextual"][rows] = _value(seen, rows, chance)
        column = draw(chance, uniform[0, rows])
        shown[rows] = column
        clicked[rows] = uniform[1, rows] < seen.click[rows, column]
        if phi is not None:
            mine = known[rows]
            features = contextual.shown(rows[mine], phi[mine], chance[mine], column[mine])
            for late in range(late_days + 1):
                some = delay[rows[mine]] == late
                waiting.setdefault(today + late, []).append((features[some], clicked[rows[mine]][some]))
            for told, reward in waiting.pop(today, []):
                contextual.information += rewards(told, reward, np.ones(len(reward)))
            contextual.believe()
        # one artwork for all people, by Thompson sampling on each artwork's own record
        rate = np.add.reduceat(record, first[:-1], axis=1)
        of_item = ((rate[0] + 1) / (rate[1] + 200))[world.creatives.item]
        strength = 1 / PULL_SD**2
        drawn = rng.gamma(record[0] + strength) / (record[1] + strength / of_item)
        best = _best(seen, rows, drawn)
        value["single, live"][rows] = seen.click[rows, best] * seen.worth[rows]
        creative = decisions.eligible[rows, best] - 1
        record[1] += np.bincount(creative[known[rows]], minlength=first[-1])
        hit = (uniform[2, rows] < seen.click[rows, best]) & known[rows]
        for late in range(late_days + 1):
            waiting_clicks.setdefault(today + late, []).append(creative[hit & (delay[rows] == late)])
        for told in waiting_clicks.pop(today, []):
            record[0] += np.bincount(told, minlength=first[-1])
    every = np.arange(n)
    value["random"] = seen.value(seen.there / seen.there.sum(1, keepdims=True))
    full, _ = true_effects(world, seen)
    value["single, truth"] = seen.click[every, _best(seen, every, full)] * seen.worth
    value["informed"] = seen.click[every, informed(world, seen, stages[-1].data.profiles)] * seen.worth
    value["oracle"] = seen.click[every, seen.oracle] * seen.worth
    return {"everybody": _told(seen, value, every), "known_people": _told(seen, value, np.flatnonzero(known))}


def _told(seen: Impressions, value: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, Any]:
    """Return values by tenth, shares of gain in the last tenth, and regret by quarter, of some impressions."""
    n = len(rows)
    tenth, quarter = np.arange(n) * TENTHS // n, np.arange(n) * QUARTERS // n
    found: dict[str, Any] = {
        "by_tenth": {name: (np.bincount(tenth, v[rows]) / np.bincount(tenth)).tolist() for name, v in value.items()}
    }
    last = rows[tenth == TENTHS - 1]
    _, who = np.unique(seen.person[seen.decisions.moment[last]], return_inverse=True)
    sums = {name: np.bincount(who, v[last]) for name, v in value.items()}
    means = resampled_means(np.stack([np.bincount(who), *sums.values()], 1), 2000, 0)
    drawn = {name: means[:, 1 + place] for place, name in enumerate(sums)}
    for low in ("single, live", "single, truth"):
        for high in ("oracle", "informed"):
            gain = (drawn["contextual"] - drawn[low]) / (drawn[high] - drawn[low])
            exact = sums["contextual"].sum() - sums[low].sum()
            interval = [float(q) for q in np.quantile(gain, [0.025, 0.975])]
            found[f"share of {high}'s gain over {low}"] = [
                float(exact / (sums[high].sum() - sums[low].sum())),
                *interval,
            ]
    for high in ("oracle", "informed"):
        lost = np.bincount(quarter, (value[high] - value["contextual"])[rows]) / np.bincount(quarter)
        found[f"regret to {high} by quarter"] = lost.tolist()
        found[f"last quarter's regret to {high} over the first's"] = float(lost[-1] / lost[0])
    return found


def _value(seen: Impressions, rows: np.ndarray, chance: np.ndarray) -> np.ndarray:
    found: np.ndarray = (chance * seen.click[rows]).sum(1) * seen.worth[rows]
    return found


def _best(seen: Impressions, rows: np.ndarray, effect: np.ndarray) -> np.ndarray:
    score = effect[np.maximum(seen.decisions.eligible[rows], 1) - 1]
    best: np.ndarray = np.where(seen.there[rows], score, -np.inf).argmax(1)
    return best
