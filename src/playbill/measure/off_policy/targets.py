"""What the target policy would have done in each round: from a file of probabilities, or one of four plain policies.

Policies that learn from the log (popularity, greedy) are learned on the other half of its people, whatever is
resampled: a policy that picks what happened to be lucky in a log looks lucky in that log.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.off_policy.eligible import Eligible
from playbill.measure.off_policy.log import SUM_TOLERANCE, Choices, Log
from playbill.measure.off_policy.rounds import Rounds
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.measure.statement import refuse_rows

_STRENGTH = 20.0  # rounds of an average action that greedy adds to each action's own, so that luck does not win


def log_of(rounds: Rounds, question: OffPolicyQuestion, *, seed: int = 0) -> Log:
    """Return the log of the question's target policy.

    Args:
        seed: deals people into halves where the target learns from the log.
    Raises:
        MeasureError: probabilities that are missing, out of range or do not sum to 1, or eligible lists that the target
            needs and the log lacks; names the column, how many rows, and the first ones.
    """
    n = len(rounds.reward)
    eligible, chosen = rounds.eligible, None
    if eligible is not None:
        chosen = _chosen_rows(rounds, eligible, "decisions", "context")
    choices: Choices | None = None
    if question.target == "logged":
        target = rounds.propensity.copy()
    elif question.target == "uniform" and eligible is None:
        if rounds.eligible_count is None:
            raise MeasureError("target uniform needs decisions.eligible_count, or lists in decisions.context")
        count = rounds.eligible_count
        refuse_rows("decisions", "eligible_count", ~(count >= 1), count, "a decision has at least one eligible action")
        target = 1.0 / count
    elif question.target.endswith(".parquet"):
        target, choices = _from_file(Path(question.target), rounds)
    else:
        if eligible is None or chosen is None:
            raise MeasureError(
                f"target {question.target} needs the eligible actions of every decision: write them as the list "
                "`eligible` of decisions.context, or set question.every_action_eligible=true where all were"
            )
        chances = _learned(rounds, eligible, question, seed)
        choices = Choices(
            first=eligible.first, action=eligible.action, target=chances, logging=eligible.logging, chosen=chosen
        )
        target = chances[chosen]
    if len(target) != n:
        raise MeasureError(f"the target has {len(target)} rows, the log {n}")
    return Log(
        reward=rounds.reward,
        propensity=rounds.propensity,
        target=target,
        action=rounds.action,
        position=rounds.position,
        request=rounds.request,
        unit=rounds.unit,
        person=rounds.person,
        features=rounds.features,
        choices=choices,
        reward_low=rounds.reward_low,
        reward_high=rounds.reward_high,
    )


def _chosen_rows(rounds: Rounds, eligible: Eligible, table: str, column: str) -> np.ndarray:
    n = len(rounds.reward)
    of = np.repeat(np.arange(n), np.diff(eligible.first))
    hits = np.flatnonzero(eligible.action == rounds.action[of])
    times = np.bincount(of[hits], minlength=n)
    names = np.array(rounds.actions, object)[rounds.action]
    refuse_rows(table, column, times != 1, names, "the chosen action must stand once in its decision's list of actions")
    return hits


def _learned(rounds: Rounds, eligible: Eligible, question: OffPolicyQuestion, seed: int) -> np.ndarray:
    """Return [T] float64 probabilities of a built-in policy over each round's eligible actions."""
    n, size = len(rounds.reward), np.diff(eligible.first)
    of = np.repeat(np.arange(n), size)
    if question.target == "uniform":
        alike: np.ndarray = 1.0 / size[of]
        return alike
    _, person = np.unique(rounds.person, return_inverse=True)
    half = (np.random.default_rng(seed).permutation(int(person.max()) + 1) % 2)[person]
    chances = np.empty(len(of))
    for side in (0, 1):
        seen = half != side
        if not seen.any():
            raise MeasureError(f"target {question.target} learns on half of the people, and the log has only one")
        total = np.bincount(rounds.action[seen], rounds.reward[seen], minlength=len(rounds.actions))
        shown = np.bincount(rounds.action[seen], minlength=len(rounds.actions))
        mine = half[of] == side
        if question.target == "popularity":
            chances[mine] = (np.maximum(total, 0) + 1)[eligible.action[mine]]
        else:
            rate = (total + _STRENGTH * rounds.reward[seen].mean()) / (shown + _STRENGTH)
            chances[mine] = rate[eligible.action[mine]]
    if question.target == "greedy":
        best = chances == np.maximum.reduceat(chances, eligible.first[:-1])[of]
        ties = np.bincount(of, best, minlength=n)[of]
        chances = question.greedy_epsilon / size[of] + (1 - question.greedy_epsilon) * best / ties
    shares: np.ndarray = chances / np.bincount(of, chances, minlength=n)[of]
    return shares


def _from_file(path: Path, rounds: Rounds) -> tuple[np.ndarray, Choices | None]:
    if not path.is_file():
        raise MeasureError(f"no target at {path}; write a parquet file with decision_id and probability")
    frame = pl.read_parquet(path)
    missing = [name for name in ("decision_id", "probability") if name not in frame.columns]
    if missing:
        raise MeasureError(f"{path.name} has no column {', '.join(missing)}; it has: {', '.join(frame.columns)}")
    if frame["decision_id"].dtype != rounds.decision_id.dtype:
        raise MeasureError(
            f"{path.name}.decision_id is {frame['decision_id'].dtype}, decisions.decision_id is "
            f"{rounds.decision_id.dtype}; write both alike"
        )
    ids = frame["decision_id"]
    refuse_rows(path.name, "decision_id", ids.is_duplicated().to_numpy(), ids, "a decision stands once")
    probability = frame["probability"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    bad = ~((probability >= 0) & (probability <= 1 + SUM_TOLERANCE))
    refuse_rows(path.name, "probability", bad, probability, "a probability must lie in 0..1")
    wanted = rounds.decision_id.to_frame("decision_id")
    joined = wanted.join(frame, on="decision_id", how="left", maintain_order="left")
    lost = joined["probability"].is_null().to_numpy()
    refuse_rows("decisions", "decision_id", lost, rounds.decision_id, f"{path.name} has no probability for it")
    target = joined["probability"].cast(pl.Float64).to_numpy()
    if not {"actions", "probabilities"} <= set(frame.columns):
        return target, None
    return target, _distributions(path.name, joined, rounds)


def _distributions(name: str, joined: pl.DataFrame, rounds: Rounds) -> Choices:
    lengths = joined["actions"].list.len()
    columns = ["probabilities", *(["logging"] if "logging" in joined.columns else [])]
    for column in columns:
        apart = (lengths != joined[column].list.len()).fill_null(True).to_numpy()
        refuse_rows(name, column, apart, lengths, "actions and their probabilities must be lists of one length")
    known = {action: index for index, action in enumerate(rounds.actions)}
    flat = joined["actions"].explode(empty_as_null=False, keep_nulls=False).cast(pl.String).to_list()
    for action in flat:
        if action not in known:  # never chosen in this log, which is no fault
            known[action] = len(known)
            rounds.actions.append(action)
    listed = Eligible(
        np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int64),
        np.array([known[action] for action in flat], np.int64),
        None,
    )
    flattened = [
        joined[column].explode(empty_as_null=False, keep_nulls=False).cast(pl.Float64).fill_null(np.nan).to_numpy()
        for column in columns
    ]
    return Choices(
        first=listed.first,
        action=listed.action,
        target=flattened[0],
        logging=flattened[1] if len(flattened) > 1 else None,
        chosen=_chosen_rows(rounds, listed, name, "actions"),
    )
