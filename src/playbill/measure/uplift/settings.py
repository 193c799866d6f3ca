"""Settings of `playbill measure question=uplift`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError


class Outcome(Enum):
    """What of a person's events inside the window is the outcome."""

    HAPPENED = "happened"
    COUNT = "count"
    SUM = "sum"


class LearnerKind(Enum):
    """Which learner predicts effects when no scores are given."""

    T = "t"
    X = "x"
    CLASS_TRANSFORMATION = "class_transformation"


class ModelKind(Enum):
    """What the learner is built of."""

    LIGHTGBM = "lightgbm"
    LINEAR = "linear"


class HeldOut(Enum):
    """Who teaches the rule by which a person is targeted."""

    FORWARD = "forward"
    CROSS = "cross"


@dataclass(slots=True, kw_only=True)
class UpliftQuestion:
    """Whom does a treatment move, and what is it worth to treat only them?

    playbill measure question=uplift tables=shop question.experiment=spring-mail question.control=none
    question.event=purchase question.outcome=SUM question.cost={mail: 0.1} question.budget_share=0.3
    """

    experiment: str = ""
    """request_id of the experiment's decisions of kind experiment_arm; empty: the only experiment there is."""
    control: str = "control"
    """Name of the arm without the treatment."""
    shares: dict[str, float] = field(default_factory=dict)
    """Planned share by arm, summing to 1; empty: the decisions' propensities, which alone show that arms were drawn."""
    event: str = "purchase"
    """Name of the event that is the outcome."""
    outcome: Outcome = Outcome.HAPPENED
    """HAPPENED: 1 if any such event; COUNT: how many; SUM: the sum of their values."""
    window_h: float = 336.0
    """Hours after a person's assignment in which events count; people whose window is not over are left out."""
    until: str = ""
    """End of the log, ISO 8601 (UTC where no zone is given); empty: the last event or decision in it."""
    scores: str = ""
    """Parquet or csv file with user_id and a column a treated arm: its predicted effect; empty: a learner is fitted."""
    learner: LearnerKind = LearnerKind.X
    """Learner used without scores: T, X or CLASS_TRANSFORMATION (outcome 0 or 1)."""
    model: ModelKind = ModelKind.LIGHTGBM
    """What the learner is built of: LIGHTGBM or LINEAR."""
    features: list[str] = field(default_factory=list)
    """Columns of users that the learner sees; empty: all that are neither protected, sensitive nor consent."""
    folds: int = 5
    """People are held out in so many parts; each is targeted by what others taught."""
    held_out: HeldOut = HeldOut.FORWARD
    """FORWARD: parts before teach, so the first is not judged; CROSS: all others teach, and intervals are narrow."""
    worth: float = 1.0
    """Money for one unit of the outcome, such as the margin on a purchase."""
    cost: dict[str, float] = field(default_factory=dict)
    """Money that treating one person costs, by arm; arms that are not named cost nothing."""
    budget_share: float = 1.0
    """Largest share of people that may be treated."""
    budget_money: float = 0.0
    """Largest spending in money over all people of the experiment; 0 sets no limit."""
    resamples: int = 1000
    """Bootstrap draws of people."""

    def __post_init__(self) -> None:
        if not 0 < self.window_h < 1e9:
            raise ConfigError(f"window_h must be hours from 0 to 1e9, got {self.window_h}")
        if self.folds < 2:
            raise ConfigError(f"folds must be >= 2, got {self.folds}")
        if not 0 < self.budget_share <= 1:
            raise ConfigError(f"budget_share must lie in 0..1 and not be 0, got {self.budget_share}")
        if self.budget_money < 0:
            raise ConfigError(f"budget_money must be >= 0, got {self.budget_money}")
        if self.resamples < 100:
            raise ConfigError(f"resamples must be >= 100, got {self.resamples}")
        negative = {arm: cost for arm, cost in self.cost.items() if not cost >= 0}
        if negative:
            raise ConfigError(f"cost must be >= 0, got {negative}")
