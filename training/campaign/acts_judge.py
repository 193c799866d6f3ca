"""Which model an act keeps, the map that makes it true, and what the latest moments say of it beside the others."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from scipy.optimize import minimize_scalar

from playbill.campaign.act_models import Model
from playbill.campaign.acts import Act, amounts, calibrated
from playbill.measure.binary import auc, log_loss
from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.calibration import Calibration, calibration, fit_calibrator
from playbill.training.campaign.acts_moments import Rows

_GRID = np.linspace(-12, 12, 241)  # log-odds at which the map of probabilities is written down


class Chances(msgspec.Struct, kw_only=True):
    """How well one model foretold the latest moments; of calibrated probabilities. Lower is better, AUC aside."""

    log_loss: float
    brier: float
    auc: float


class Amounts(msgspec.Struct, kw_only=True):
    """How well one model foretold amounts; in the unit of money. Lower is better.

    Attributes:
        deviance: mean Poisson deviance, by which models are chosen: the mean is what makes it least.
        mae, rmse: of the mean that was foretold.
        ratio: money paid / money foretold.
    """

    deviance: float
    mae: float
    rmse: float
    ratio: float


class Foretold(msgspec.Struct, kw_only=True):
    """Of one act on the latest moments.

    Attributes:
        chosen: by the moments before them, those that calibrate.
        rows, people, cases: that judged.
        chances, amounts: of every model by name.
        gained: what the chosen model's loss is less than each other's, with its interval over people: log loss, or
            the absolute error of amounts.
        calibration: of the chosen probabilities; None of amounts.
        tenths: of amounts: foretold and paid, mean of each tenth of the rows by what was foretold.
    """

    chosen: str
    rows: int
    people: int
    cases: int
    chances: dict[str, Chances]
    amounts: dict[str, Amounts]
    gained: dict[str, Interval]
    calibration: Calibration | None = None
    tenths: list[tuple[float, float]] = []


def make_true(act: Act, model: Model, rows: Rows) -> Act:
    """Return the act with the map, or of amounts the factor, that makes a model true on rows."""
    p = model(rows.x, act.horizon)
    if act.name.startswith("value"):
        power = _power(p, rows.y)
        of_power = float((np.maximum(p, 0) ** power).sum())
        return msgspec.structs.replace(act, factor=float(rows.y.sum() / max(of_power, 1e-12)), power=power)
    fitted = fit_calibrator(np.clip(p, 0, 1), rows.y)
    if not fitted.rows:
        return msgspec.structs.replace(act, knots=[], mapped=[])
    return msgspec.structs.replace(act, knots=_GRID.tolist(), mapped=fitted.logits(_GRID).tolist())


def _power(p: np.ndarray, y: np.ndarray) -> float:
    """Return the power of the model's amounts with the least Poisson deviance, their sum made true."""
    logs, share = np.log(np.maximum(p, 1e-9)), y / max(float(y.sum()), 1e-12)
    logs -= logs.max()

    def loss(power: float) -> float:
        return float(np.log(np.exp(power * logs).sum()) - power * (share @ logs))

    return float(minimize_scalar(loss, bounds=(0.25, 2.0), method="bounded").x) if logs.std() > 1e-9 else 1.0


def choose(act: Act, models: Mapping[str, Model], rows: Rows) -> str:
    """Return the model with the least loss on rows, each half of the people made true by the other half."""
    half = rows.person % 2 == 0
    sums = dict.fromkeys(models, 0.0)
    for mine in (half, ~half):
        theirs = Rows(rows.x[~mine], rows.y[~mine], rows.person[~mine])
        for name, model in models.items():
            p = foretell(make_true(act, model, theirs), model, rows.x[mine])
            sums[name] += float(losses(act, p, rows.y[mine]).sum())
    return min(sums, key=lambda name: sums[name])


def foretell(act: Act, model: Model, x: np.ndarray) -> np.ndarray:
    """Return [n] what an act's model says once made true; of churn, how likely somebody is there."""
    p = model(x, act.horizon)
    return amounts(p, act) if act.name.startswith("value") else calibrated(p, act)


def losses(act: Act, p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return [n] log loss, or of amounts Poisson deviance."""
    if act.name.startswith("value"):
        p = np.maximum(p, 1e-9)
        found: np.ndarray = 2 * (np.where(y > 0, y * np.log(np.maximum(y, 1e-12) / p), 0) - (y - p))
        return found
    return log_loss(y > 0.5, p)


def judge(acts: Mapping[str, Act], models: Mapping[str, Model], chosen: str, rows: Rows, seed: int) -> Foretold:
    """Return what rows that nothing was learned from say of every model.

    Args:
        acts: of each model, made true.
    """
    act = acts[chosen]
    said = {name: foretell(acts[name], model, rows.x) for name, model in models.items()}
    amount = act.name.startswith("value")
    error = {n: np.abs(p - rows.y) if amount else losses(act, p, rows.y) for n, p in said.items()}
    _, place = np.unique(rows.person, return_inverse=True)
    people = int(place.max()) + 1

    def by_person(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values, minlength=people) * people / len(rows.y)

    gained = {name: by_person(error[name] - error[chosen]) for name in models if name != chosen}
    flip = act.complement
    label = 1 - rows.y if flip else rows.y
    p = 1 - said[chosen] if flip else said[chosen]
    return Foretold(
        chosen=chosen,
        rows=len(rows.y),
        people=people,
        cases=int((label > 0).sum()),
        chances={} if amount else {name: _chances(act, one, rows.y) for name, one in said.items()},
        amounts={name: _amounts(act, one, rows.y) for name, one in said.items()} if amount else {},
        gained=intervals(gained, seed=seed),
        calibration=None if amount else calibration(p, label, rows.person, task=act.name, least_events=100, seed=seed),
        tenths=_tenths(p, rows.y) if amount else [],
    )


def _chances(act: Act, p: np.ndarray, y: np.ndarray) -> Chances:
    loss, brier = float(losses(act, p, y).mean()), float(((p - y) ** 2).mean())
    return Chances(log_loss=loss, brier=brier, auc=float(auc(y > 0.5, p)))


def _amounts(act: Act, p: np.ndarray, y: np.ndarray) -> Amounts:
    return Amounts(
        deviance=float(losses(act, p, y).mean()),
        mae=float(np.abs(p - y).mean()),
        rmse=float(np.sqrt(((p - y) ** 2).mean())),
        ratio=float(y.sum() / max(p.sum(), 1e-12)),
    )


def _tenths(p: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    parts = np.array_split(np.argsort(p, kind="stable"), 10)
    return [(float(p[part].mean()), float(y[part].mean())) for part in parts if len(part)]
