"""Settings of `playbill measure question=off_policy`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError
from playbill.tables.schema import DECISION_KINDS

LEARNED = ("popularity", "greedy")
TARGETS = ("logged", "uniform", *LEARNED)


class RewardOf(Enum):
    """What of the events that follow a decision is its reward."""

    ANY = "any"
    COUNT = "count"
    SUM = "sum"


class Unit(Enum):
    """What is resampled: rounds of one unit may depend on each other."""

    PERSON = "person"
    REQUEST = "request"
    DECISION = "decision"


class SlatePropensities(Enum):
    """What the probabilities at a position of a slate are, the logging policy's and the target's alike."""

    NOT_DECLARED = "not_declared"
    INDEPENDENT = "independent"
    MARGINAL = "marginal"
    CONDITIONAL = "conditional"


class Model(Enum):
    """Reward model of DM, DR and switch-DR."""

    MEANS = "means"
    LOGISTIC = "logistic"
    LIGHTGBM = "lightgbm"


@dataclass(slots=True, kw_only=True)
class OffPolicyQuestion:
    """What would another policy have been worth on the people of this log?

    playbill measure question=off_policy tables=shop question.target=uniform
    playbill measure question=off_policy tables=shop question.target=new_policy.parquet question.reward_event=play
    question.reward=SUM question.reward_high=1

    Prints every estimator beside the others, what the weights are worth, and a verdict: a value is refused where the
    log holds nothing about what the target policy does.
    """

    kind: str = "item"
    """Kind of decision that is evaluated: item, creative, subject, send_hour, offer, channel."""
    policy: str = ""
    """Only decisions of this logging policy (decisions.policy); empty: all of the kind."""
    target: str = "uniform"
    """logged, uniform, popularity, greedy, or the path of a parquet file with decision_id and probability (of the
    chosen action); with list columns actions and probabilities (of all of them, and logging if known) models help."""
    greedy_epsilon: float = 0.1
    """Share of target=greedy that is uniform over the eligible actions."""
    reward_event: str = "click"
    """Name of the event that is the reward; it names its decision, or another one at the same request and position."""
    reward: RewardOf = RewardOf.ANY
    """ANY: 1 if such an event followed; COUNT: how many; SUM: the sum of their values."""
    within_h: float = 72.0
    """Hours after a decision in which events count; decisions whose hours are not over when the log ends are left out.
    0: events count whenever they came, and nothing is left out."""
    reward_low: float = 0.0
    """Least possible reward of a decision."""
    reward_high: float = 0.0
    """Largest possible reward of a decision; 0: 1 for ANY, else unknown, and then there is no finite-sample bound."""
    unit: Unit = Unit.PERSON
    """What is resampled: PERSON (session where nobody is known), REQUEST or DECISION."""
    every_action_eligible: bool = False
    """Every action seen in the log could be chosen in every decision; for logs without lists of eligible actions."""
    slates: bool = True
    """Also the value of a whole slate, where requests have several positions and slate_propensities is declared."""
    slate_propensities: SlatePropensities = SlatePropensities.NOT_DECLARED
    """Probabilities of an action at its position: MARGINAL, over whatever may stand elsewhere; CONDITIONAL, given the
    actions above; INDEPENDENT, both at once, since positions were chosen without regard to each other."""
    model: Model = Model.LOGISTIC
    """Reward model of DM, DR and switch-DR: MEANS of actions, LOGISTIC regression, or LIGHTGBM trees."""
    features: list[str] = field(default_factory=list)
    """What the reward model sees besides action and position: columns of users, and context.NAME for entries of
    decisions.context."""
    folds: int = 3
    """Folds of cross-fitting."""
    clip: float = 0.0
    """Where clipped IPS cuts weights; 0: the root of the number of decisions."""
    switch: float = 0.0
    """Weight above which switch-DR trusts the model alone; 0: the one of least estimated squared error."""
    largest_weight: float = 0.0
    """Largest weight that can occur, for the finite-sample bound; 0: the largest among the contexts of this log, where
    distributions are written, and none else."""
    most_decisions_per_unit: int = 0
    """Most decisions that a unit can have, by how the log was made (not by what it holds), for the finite-sample bound;
    0: not declared, and then there is no such bound unless unit=DECISION."""
    resamples: int = 2000
    """Bootstrap resamples."""
    most_unsupported: float = 0.01
    """Share of the target's probability that may lie on actions the logging policy could not choose."""
    least_effective: float = 50.0
    """Fewest decisions, and units, of equal weight that a value may rest on."""

    def __post_init__(self) -> None:
        if self.kind not in DECISION_KINDS:
            raise ConfigError(f"question.kind must be one of {', '.join(DECISION_KINDS)}, got {self.kind!r}")
        if self.target not in TARGETS and not self.target.endswith(".parquet"):
            raise ConfigError(
                f"question.target must be one of {', '.join(TARGETS)} or the path of a .parquet file, "
                f"got {self.target!r}"
            )
        for name in ("greedy_epsilon", "most_unsupported"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"question.{name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("within_h", "clip", "switch", "largest_weight", "most_decisions_per_unit", "least_effective"):
            if not 0 <= getattr(self, name) < 1e9:  # so many hours still fit in microseconds
                raise ConfigError(f"question.{name} must be a number from 0 to 1e9, got {getattr(self, name)}")
        if self.reward_high and self.reward_high <= self.reward_low:
            raise ConfigError(f"question.reward_high must exceed reward_low, got {self.reward_low}..{self.reward_high}")
        if self.reward is RewardOf.ANY and (self.reward_low, self.reward_high) not in ((0.0, 0.0), (0.0, 1.0)):
            raise ConfigError(
                f"question.reward=ANY lies in 0..1; leave reward_low and reward_high at 0, got "
                f"{self.reward_low}..{self.reward_high}"
            )
        if self.folds < 2 or self.resamples < 200:
            raise ConfigError(
                f"question.folds must be >= 2 and question.resamples >= 200, got {self.folds} and {self.resamples}"
            )
