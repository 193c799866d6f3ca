"""Reference learners of treatment effects, over any estimator with `fit` and `predict` (or `predict_proba`).

    T-learner              a model of the outcome by arm; effect = prediction of the arm - prediction of the control
    X-learner              each person's effect imputed with the other arm's model, then modelled: strong where one arm
                           is small (Kuenzel, Sekhon, Bickel and Yu 2019, "Metalearners for estimating heterogeneous
                           treatment effects using machine learning", PNAS, section "X-learner")
    class transformation   one classifier of Z = (outcome 1 and treated) or (outcome 0 and control): the effect is
                           2 P(Z = 1) - 1 (Jaskowski and Jaroszewicz 2012, "Uplift modeling for clinical trial data").
                           Theirs needs equal shares; here people are weighted by 1 / share, which gives that.

Several arms: each against the control. A learner fits on one trial and predicts for other people: `cross_fit` holds
every person out once, or lets each fold be told by those before it. Estimators are made by functions `() -> estimator`,
fresh for every fit, their seed inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.uplift.trial import CONTROL, Trial

Make = Callable[[], Any]


@dataclass(slots=True)
class Models:
    """What a learner is built of.

    Attributes:
        outcome: makes a regressor, or a classifier for an outcome of 0 and 1.
        effect: makes a regressor.
    """

    outcome: Make
    effect: Make


def t_learner(features: np.ndarray, trial: Trial, held_out: np.ndarray, *, models: Models) -> np.ndarray:
    """Return predicted effects from one outcome model an arm.

    Args:
        features: [N, F] float64, of the people of the trial.
        trial: N people in A arms.
        held_out: [M, F] float64.
        models: only `outcome` is used.
    Returns:
        [M, A] float64, column 0 is 0.
    """
    expected = expected_outcomes(features, trial, held_out, models=models)
    effect: np.ndarray = expected - expected[:, [CONTROL]]
    return effect


def expected_outcomes(features: np.ndarray, trial: Trial, held_out: np.ndarray, *, models: Models) -> np.ndarray:
    """Return [M, A] float64, the predicted outcome of each held-out person in each arm."""
    _check(features, trial, held_out)
    fitted = [_fitted(models.outcome, features[trial.arm == a], trial.outcome[trial.arm == a]) for a in _arms(trial)]
    return np.stack([model(held_out) for model in fitted], axis=1)


def x_learner(features: np.ndarray, trial: Trial, held_out: np.ndarray, *, models: Models) -> np.ndarray:
    """Return predicted effects from modelled imputed effects, joined by the arms' shares.

    Args:
        features, trial, held_out: see `t_learner`.
        models: of outcomes and of imputed effects.
    Returns:
        [M, A] float64, column 0 is 0.
    """
    _check(features, trial, held_out)
    control = trial.arm == CONTROL
    x_c, y_c = features[control], trial.outcome[control]
    mu_c = _fitted(models.outcome, x_c, y_c)
    effect = np.zeros((len(held_out), len(trial.arms)))
    for a in _arms(trial)[1:]:
        x_t, y_t = features[trial.arm == a], trial.outcome[trial.arm == a]
        mu_t = _fitted(models.outcome, x_t, y_t)
        tau_t = _fitted(models.effect, x_t, y_t - mu_c(x_t))
        tau_c = _fitted(models.effect, x_c, mu_t(x_c) - y_c)
        g = trial.share[a] / (trial.share[a] + trial.share[CONTROL])
        effect[:, a] = g * tau_c(held_out) + (1 - g) * tau_t(held_out)
    return effect


def class_transformation(features: np.ndarray, trial: Trial, held_out: np.ndarray, *, models: Models) -> np.ndarray:
    """Return predicted effects from one classifier an arm; the outcome must be 0 or 1.

    Args:
        features, trial, held_out: see `t_learner`.
        models: only `outcome` is used, a classifier whose last step takes `sample_weight`.
    Raises:
        MeasureError: an outcome that is neither 0 nor 1.
    """
    _check(features, trial, held_out)
    if not trial.binary:
        other = np.flatnonzero(~np.isin(trial.outcome, (0.0, 1.0)))
        raise MeasureError(
            f"class transformation needs an outcome of 0 and 1; {len(other):,} of {len(trial):,} are others, the first "
            f"{trial.outcome[other[:3]].tolist()}; use the t or the x learner, or an outcome that happened or not"
        )
    effect = np.zeros((len(held_out), len(trial.arms)))
    for a in _arms(trial)[1:]:
        rows = (trial.arm == a) | (trial.arm == CONTROL)
        treated = trial.arm[rows] == a
        z = np.where(treated, trial.outcome[rows], 1 - trial.outcome[rows])
        weight = 1 / trial.share[trial.arm[rows]]
        model = _fitted(models.outcome, features[rows], z, weight / weight.mean())
        effect[:, a] = 2 * model(held_out) - 1
    return effect


def cross_fit(
    learner: Callable[[np.ndarray, Trial, np.ndarray], np.ndarray],
    features: np.ndarray,
    trial: Trial,
    fold: np.ndarray,
    *,
    forward: bool = False,
) -> np.ndarray:
    """Return [N, A] float64: what the learner says of each person when fitted on people of other folds.

    With all other folds, everybody is held out and the learner sees most, but the folds' errors hang together: chance
    in one fold picks the rule by which the others are judged, and the other way round, so that the interval of a
    learned rule's value is too narrow where the rule is unstable. With the folds before alone, each error has mean 0
    given all that came before it, and the interval holds whatever the rule does.

    Args:
        learner: such as `partial(t_learner, models=...)`; also fits `expected_outcomes`.
        features: [N, F] float64.
        trial: N people.
        fold: [N] int, from `folds`.
        forward: fit on the folds with a smaller number; the first fold's people get NaN.
    Raises:
        MeasureError: fewer than two folds, or an arm with nobody to teach a fold.
    Source:
        Luedtke and van der Laan 2016, "Statistical inference for the mean outcome under a possibly non-unique optimal
        treatment strategy": the folds before alone.
    """
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise MeasureError(f"cross-fitting needs two folds or more, got {len(numbers)}")
    said = np.full((len(trial), len(trial.arms)), np.nan)
    for number in numbers[1:] if forward else numbers:
        out, teach = fold == number, taught(fold, int(number), forward)
        missing = np.setdiff1d(_arms(trial), trial.arm[teach])
        if len(missing):
            names = ", ".join(trial.arms[a] for a in missing)
            raise MeasureError(f"fold {number}: nobody of arm {names} teaches it; use fewer folds or more people")
        said[out] = learner(features[teach], trial.take(teach), features[out])
    return said


def taught(fold: np.ndarray, number: int, forward: bool) -> np.ndarray:
    """Return [N] bool: whose outcomes may decide about the people of a fold."""
    teach: np.ndarray = fold < number if forward else fold != number
    return teach


def folds(people: int, count: int, seed: int) -> np.ndarray:
    """Return [N] int64 fold numbers 0..count-1, equal in size up to one person, drawn from the seed."""
    return np.random.default_rng(seed).permutation(people) % count


def lightgbm_models(seed: int, *, binary: bool, trees: int = 100, leaves: int = 8, least: int = 100) -> Models:
    """Return makers of small, strongly restrained LightGBM models.

    Args:
        seed: of the models; fits are deterministic.
        binary: the outcome is 0 or 1, so its model is a classifier.
        trees, leaves, least: number of trees, leaves of a tree, fewest people in a leaf.
    """
    from lightgbm import LGBMClassifier, LGBMRegressor

    settings: dict[str, Any] = {
        "n_estimators": trees,
        "num_leaves": leaves,
        "min_child_samples": least,
        "learning_rate": 0.05,
        "n_jobs": 1,
        "random_state": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    regressor = partial(LGBMRegressor, **settings)
    return Models(partial(LGBMClassifier, **settings) if binary else regressor, regressor)


def linear_models(*, binary: bool) -> Models:
    """Return makers of ridge and logistic regression on standardised features."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def made(last: Callable[[], Any]) -> Any:
        # missing values: the mean stands in, and a column of its own says so
        return make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), last())

    regressor = partial(made, partial(Ridge, alpha=10.0))
    classifier = partial(made, partial(LogisticRegression, C=0.1, max_iter=1000))
    return Models(classifier if binary else regressor, regressor)


def _fitted(
    make: Make, features: np.ndarray, outcome: np.ndarray, weight: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the prediction function of a fresh estimator fitted on these people."""
    if len(outcome) and (outcome == outcome[0]).all():
        # nothing to learn, and a classifier of one class cannot be fitted
        return partial(_always, float(outcome[0]))
    model = make()
    classifier = hasattr(model, "predict_proba")
    given = outcome.astype(np.int64) if classifier else outcome
    if weight is None or (weight == weight[0]).all():
        model.fit(features, given)
    elif hasattr(model, "steps"):
        model.fit(features, given, **{f"{model.steps[-1][0]}__sample_weight": weight})
    else:
        model.fit(features, given, sample_weight=weight)
    return partial(_predicted, model, classifier)


def _always(value: float, features: np.ndarray) -> np.ndarray:
    return np.full(len(features), value)


def _predicted(model: Any, classifier: bool, features: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_proba(features)[:, 1] if classifier else model.predict(features), np.float64)


def _arms(trial: Trial) -> np.ndarray:
    return np.arange(len(trial.arms))


def _check(features: np.ndarray, trial: Trial, held_out: np.ndarray) -> None:
    if (
        features.ndim != 2
        or len(features) != len(trial)
        or held_out.ndim != 2
        or held_out.shape[1] != features.shape[1]
    ):
        raise MeasureError(
            f"features must be [{len(trial)}, F] and held_out [M, F], got {features.shape} and {held_out.shape}"
        )
    empty = np.setdiff1d(_arms(trial), trial.arm)
    if len(empty):
        raise MeasureError(
            f"nobody is in arm {', '.join(trial.arms[a] for a in empty)}; a model of it cannot be fitted"
        )
