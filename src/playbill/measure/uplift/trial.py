"""A randomised trial as arrays: who was drawn into which arm with which planned share, and what followed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.statement import refuse_rows

CONTROL = 0  # the arm without the treatment is always the first


@dataclass(slots=True)
class Trial:
    """N people, A arms; arm 0 is the control.

    Attributes:
        arms: A names, the control first.
        arm: [N] int64, the arm each person was drawn into.
        share: [A] float64, planned shares, sum 1: the known propensities.
        outcome: [N] float64, what followed (a flag, a count, money).
        user_id: [N] ids, or empty where nobody asks for them.
        logged: the log itself tells the shares; False where whoever asks declares them, which shows no random draw.
    """

    arms: list[str]
    arm: np.ndarray
    share: np.ndarray
    outcome: np.ndarray
    user_id: np.ndarray
    logged: bool = True

    def __len__(self) -> int:
        return len(self.arm)

    def take(self, rows: np.ndarray) -> Trial:
        """Return the trial of some people ([M] int64 rows or [N] bool)."""
        users = self.user_id[rows] if len(self.user_id) else self.user_id
        return replace(self, arm=self.arm[rows], outcome=self.outcome[rows], user_id=users)

    @property
    def binary(self) -> bool:
        """Whether the outcome is a flag: only 0 and 1."""
        return bool(np.isin(self.outcome, (0.0, 1.0)).all())


def make_trial(
    arms: list[str],
    arm: np.ndarray,
    share: np.ndarray,
    outcome: np.ndarray,
    user_id: np.ndarray | None = None,
    *,
    logged: bool = True,
) -> Trial:
    """Return a checked trial.

    Args:
        arms: A >= 2 names, the control first.
        arm: [N] integer in 0..A-1.
        share: [A] planned shares, each in (0, 1), sum 1.
        outcome: [N] float.
        user_id: [N] ids, unique; None where there are none.
        logged: whether the log tells the shares.
    Raises:
        MeasureError: shapes that do not fit, an arm out of range or without people, a share outside (0, 1), shares that
            do not sum to 1, an outcome that is not finite, a person twice; with the count and the first rows.
    """
    arm, share, outcome = np.asarray(arm), np.asarray(share, np.float64), np.asarray(outcome, np.float64)
    if arm.ndim != 1 or outcome.shape != arm.shape or not len(arm):
        raise MeasureError(f"arm and outcome are parallel [N] arrays, N >= 1; got shapes {arm.shape}, {outcome.shape}")
    if len(arms) < 2 or share.shape != (len(arms),):
        raise MeasureError(f"a trial has at least two arms and a share for each; got {arms} and {share.tolist()}")
    if not (np.isfinite(share) & (share > 0) & (share < 1)).all() or abs(share.sum() - 1) > 1e-6:
        named = dict(zip(arms, share.tolist(), strict=True))
        raise MeasureError(f"planned shares must each lie in (0, 1) and sum to 1, got {named} = {share.sum():g}")
    refuse_rows("trial", "arm", ~np.isin(arm, np.arange(len(arms))), arm, f"arms are numbered 0..{len(arms) - 1}")
    refuse_rows("trial", "outcome", ~np.isfinite(outcome), outcome, "an outcome must be a finite number")
    counts = np.bincount(arm.astype(np.int64), minlength=len(arms))
    empty = [name for name, count in zip(arms, counts, strict=True) if not count]
    if empty:
        raise MeasureError(
            f"nobody is in arm {', '.join(empty)}; people by arm: {dict(zip(arms, counts, strict=True))}"
        )
    users = np.zeros(0) if user_id is None else np.asarray(user_id)
    if len(users):
        if users.shape != arm.shape:
            raise MeasureError(f"user_id must be [N] = {arm.shape}, got {users.shape}")
        refuse_rows("trial", "user_id", repeated(users), users, "a person may stand in a trial once")
    return Trial(list(arms), arm.astype(np.int64), share, outcome, users, logged)


def repeated(values: np.ndarray) -> np.ndarray:
    """Return [N] bool: this value stood in an earlier row."""
    _, first = np.unique(values, return_index=True)
    again = np.ones(len(values), bool)
    again[first] = False
    return again
