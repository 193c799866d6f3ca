"""`playbill measure question=uplift`: average effects, Qini, AUUC, and what targeting within a budget is worth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.sample_ratio import sample_ratio
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, refuse_rows
from playbill.measure.uplift.features import user_features
from playbill.measure.uplift.learners import (
    class_transformation,
    cross_fit,
    expected_outcomes,
    folds,
    lightgbm_models,
    linear_models,
    taught,
    x_learner,
)
from playbill.measure.uplift.log import read_trial
from playbill.measure.uplift.settings import HeldOut, LearnerKind, ModelKind, Outcome, UpliftQuestion
from playbill.measure.uplift.statements import (
    BEST,
    LEARNED,
    NOBODY,
    RANDOM,
    Trust,
    average_effect,
    ranking,
    sentence,
    values,
)
from playbill.measure.uplift.trial import CONTROL, Trial, repeated
from playbill.measure.uplift.value import at_random, contributions, everybody, within_budget


def run(question: UpliftQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Answer the question from a folder of tables.

    Raises:
        MeasureError: the log cannot be measured; names column, count and first rows.
        TableError: a table or column is missing.
    """
    trial, warnings = read_trial(question, tables)
    fold = folds(len(trial), question.folds, settings.seed)
    expected: np.ndarray | None = None
    if question.scores:
        # nothing is learned here that could be unstable, so everybody is judged
        question = replace(question, held_out=HeldOut.CROSS)
        effect = read_scores(Path(question.scores), trial)
        how = f"scores of {Path(question.scores).name}"
    else:
        features, _, left_out = user_features(tables, trial.user_id, question.features)
        warnings += left_out
        effect, expected = fit(question, features, trial, fold, settings.seed)
        folded = "taught by the folds before" if question.held_out is HeldOut.FORWARD else "cross-fitted"
        how = f"{question.learner.value} learner, {question.model.value}, {question.folds} folds {folded}"
    return uplift_reading(question, trial, effect, fold, settings, how=how, expected=expected, warnings=warnings)


def fit(
    question: UpliftQuestion, features: np.ndarray, trial: Trial, fold: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return [N, A] predicted effects and [N, A] expected outcomes, each person's from people of other folds."""
    made = (
        lightgbm_models(seed, binary=trial.binary)
        if question.model is ModelKind.LIGHTGBM
        else linear_models(binary=trial.binary)
    )
    forward = question.held_out is HeldOut.FORWARD
    expected = cross_fit(partial(expected_outcomes, models=made), features, trial, fold, forward=forward)
    if question.learner is LearnerKind.T:
        return expected - expected[:, [CONTROL]], expected
    learner = x_learner if question.learner is LearnerKind.X else class_transformation
    return cross_fit(partial(learner, models=made), features, trial, fold, forward=forward), expected


def uplift_reading(
    question: UpliftQuestion,
    trial: Trial,
    effect: np.ndarray,
    fold: np.ndarray,
    settings: MeasureSettings,
    *,
    how: str,
    expected: np.ndarray | None = None,
    warnings: list[str] | None = None,
) -> Reading:
    """Return the reading of a trial whose effects were predicted without the people they are predicted for.

    Args:
        trial: N people in A arms.
        effect: [N, A] predicted effect of each arm, column 0 is 0.
        fold: [N] int; within each fold the budget is kept, and the best single treatment is what others taught. With
            held_out=FORWARD nobody of the first fold is judged.
        how: where `effect` comes from, in words.
        expected: [N, A] expected outcomes; with them doubly robust values stand in the details.
    """
    warnings = list(warnings or ())
    counts = np.bincount(trial.arm, minlength=len(trial.arms))
    ratio = sample_ratio(counts, trial.share.tolist())
    flagged = ""
    if ratio.flagged:
        listed = ", ".join(
            f"{arm} {n:,} of {share:.4g} planned"
            for arm, n, share in zip(trial.arms, counts, trial.share.tolist(), strict=True)
        )
        flagged = (
            f"SAMPLE RATIO: the arms' sizes contradict the planned shares ({listed}; p = {ratio.p_value:.2g}), so "
            "something decided who is in the log; find it and run the experiment again"
        )
        warnings.insert(0, flagged)
    trust = Trust(randomised=trial.logged and not flagged, flagged=flagged)
    unit = f"{question.event} ({question.outcome.value})" if question.outcome is not Outcome.SUM else question.event
    plans = rules(question, trial, effect, fold, settings.seed)
    cost = costs(question, trial)
    whole = trial  # average effects need no ranking, so nobody is left out of them
    if question.held_out is HeldOut.FORWARD:
        judged = fold > fold.min()
        trial, effect = trial.take(judged), effect[judged]
        plans = {name: plan[judged] for name, plan in plans.items()}
        expected = None if expected is None else expected[judged]
    statements = [average_effect(whole, a, unit, settings.level, trust) for a in range(1, len(trial.arms))]
    curves: list[dict[str, Any]] = []
    for a in range(1, len(trial.arms)):
        found, rows = ranking(question, trial, effect, a, settings, how, trust)
        statements += found
        curves += rows
    parts = {name: contributions(trial, plan, cost, worth=question.worth) for name, plan in plans.items()}
    doubly = {}
    if expected is not None:
        doubly = {n: contributions(trial, p, cost, worth=question.worth, expected=expected) for n, p in plans.items()}
    found, table = values(question, trial, plans, parts, doubly, settings, cost, trust)
    statements += found
    named = {s.name: s for s in found}
    verdict = f"DO NOT READ THE EFFECTS: {flagged}"
    if not flagged:
        verdict = " ".join(sentence(LEARNED, other, named[f"value, {LEARNED} - {other}"]) for other in (RANDOM, BEST))
    return Reading(
        title=f"uplift of {question.experiment or 'the experiment'}: {unit}, ranked by {how}",
        statements=statements,
        tables={"value by rule": table, "Qini and uplift curve": curves},
        verdict=verdict,
        warnings=warnings,
    )


def rules(
    question: UpliftQuestion, trial: Trial, effect: np.ndarray, fold: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Return the plans [N, A] that are compared, by name; each is chosen without the outcomes it is measured on."""
    people, arms = len(trial), len(trial.arms)
    cost = costs(question, trial)
    money = question.budget_money / people if question.budget_money else np.inf
    learned, best, random = (np.zeros((people, arms)) for _ in range(3))
    forward = question.held_out is HeldOut.FORWARD
    for number in np.unique(fold)[1 if forward else 0 :]:
        here = np.flatnonzero(fold == number)
        there = trial.take(taught(fold, int(number), forward))
        learned[here] = within_budget(
            effect[here], cost, worth=question.worth, most_share=question.budget_share, most_money=money, seed=seed
        )
        mean = [there.outcome[there.arm == a].mean() if (there.arm == a).any() else -np.inf for a in range(arms)]
        single = 1 + int(np.argmax(np.array(mean[1:]) * question.worth - cost[1:]))
        best[here] = everybody(len(here), arms, single)
        # as many people, of the same kind of treatment, as the budget allows
        share = min(question.budget_share, money / cost[single] if cost[single] else np.inf)
        random[here] = at_random(len(here), arms, single, share)
    plans = {NOBODY: everybody(people, arms, CONTROL), LEARNED: learned, RANDOM: random, BEST: best}
    for a in range(1, arms):
        plans[f"{trial.arms[a]} to all"] = everybody(people, arms, a)
    return plans


def costs(question: UpliftQuestion, trial: Trial) -> np.ndarray:
    """Return [A] float64, money for giving each arm to one person."""
    return np.array([question.cost.get(name, 0.0) for name in trial.arms])


def read_scores(file: Path, trial: Trial) -> np.ndarray:
    """Return [N, A] predicted effects from a parquet or csv file with user_id and a column a treated arm.

    Raises:
        MeasureError: no such file or column, a person twice, a person of the trial without scores, a score that is not
            finite; with the count and the first rows.
    """
    if not file.is_file():
        raise MeasureError(f"no file of scores at {file}")
    frame = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
    wanted = ["user_id", *trial.arms[1:]]
    missing = [c for c in wanted if c not in frame.columns]
    if missing:
        raise MeasureError(f"{file} has no column {', '.join(missing)}; it has: {', '.join(frame.columns)}")
    again = repeated(frame["user_id"].to_numpy())
    refuse_rows(file.name, "user_id", again, frame["user_id"].to_list(), "a person has one row of scores")
    people = pl.DataFrame({"user_id": trial.user_id})
    if people["user_id"].dtype != frame["user_id"].dtype:
        frame = frame.with_columns(pl.col("user_id").cast(people["user_id"].dtype))
    joined = people.join(frame.select(wanted), on="user_id", how="left", maintain_order="left")
    effect = np.zeros((len(trial), len(trial.arms)))
    for a, name in enumerate(trial.arms[1:], start=1):
        effect[:, a] = joined[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        why = "everybody in the experiment needs a finite score; rows are those of the experiment's people, by user_id"
        refuse_rows(file.name, name, ~np.isfinite(effect[:, a]), trial.user_id, why)
    return effect
