"""Settings of `playbill gate`: the rules, each kind of them a dataclass, and which bundle they are asked of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError
from playbill.release.rival_settings import check_metric
from playbill.release.settings import CURRENT, LATEST


@dataclass(slots=True, kw_only=True)
class PairedRule:
    """The bundle may not be clearly worse than another model on the same users."""

    metric: str
    """Such as ndcg_at_20; one that the evaluation measured."""
    against: str
    """A model of the evaluation (`popularity`, `ease`, ...), `best_rival`, or `current`: the bundle in use."""
    model: str = "served"
    """Whose difference is taken: `served` is the whole road through the engine."""
    slice: str = "all"
    """`all`, `known` (people with a history) or `new`."""
    margin: float = 0.0
    """The interval of the difference must reach above minus this."""
    needs: list[str] = field(default_factory=list)
    """Rungs that a bundle must carry for the rule to apply to it."""

    def __post_init__(self) -> None:
        check_metric(self.metric, "metric")
        if self.margin < 0:
            raise ConfigError(f"margin must be >= 0, got {self.margin}")


@dataclass(slots=True, kw_only=True)
class LimitRule:
    """A figure of one of the bundle's reports must lie within limits."""

    report: str
    """File below report/, without .json."""
    figure: str
    """Dotted path in the file; true counts as 1, false as 0."""
    at_least: float | None = None
    """Smallest allowed value."""
    at_most: float | None = None
    """Largest allowed value."""
    optional: bool = False
    """The rule does not apply where the report has no such figure; otherwise a check that was not made fails."""
    needs: list[str] = field(default_factory=list)
    """Rungs that a bundle must carry for the rule to apply to it."""

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ConfigError(f"the rule on {self.report}.{self.figure} has no limit; give at_least or at_most")


@dataclass(slots=True, kw_only=True)
class CalibrationRule:
    """In each tenth of the candidates with enough events, observed / expected may not lie clearly outside limits."""

    low: float = 0.9
    """Smallest allowed ratio; a tenth fails when its whole interval lies below."""
    high: float = 1.1
    """Largest allowed ratio; a tenth fails when its whole interval lies above."""
    tasks: list[str] = field(default_factory=list)
    """Tasks that are looked at; empty: all of the ranker's."""
    required: bool = False
    """Fail, rather than refuse to judge, where no tenth has enough events."""
    needs: list[str] = field(default_factory=lambda: ["ranker"])
    """Rungs that a bundle must carry for the rule to apply to it."""

    def __post_init__(self) -> None:
        if not 0 < self.low < 1 < self.high:
            raise ConfigError(f"low must lie in 0..1 and high above 1, got {self.low} and {self.high}")


class Beside(Enum):
    """Whose value a bundle's is held against."""

    current = "current"  # the bundle in use
    logged = "logged"  # the policy that wrote the log


@dataclass(slots=True, kw_only=True)
class ValueRule:
    """On the logged decisions the bundle may not be worth clearly less; without support no verdict is given.

    Not found to be worth less is no pass where the log is too short to find it: then the verdict is refused too.
    """

    against: Beside = Beside.current
    """current: the bundle in use; logged: the policy that wrote the log."""
    margin: float = 0.0
    """The interval of the difference must reach above minus this, in units of the reward."""
    most_untold: float = 0.2
    """Largest loss beyond the margin, as a share of the value it is held against, that may go untold: a log that would
    miss a larger one more often than 1 time in 10 is refused. 1 takes any log."""
    required: bool = False
    """Fail, rather than refuse to judge, where the log does not support a value."""
    needs: list[str] = field(default_factory=list)
    """Rungs that a bundle must carry for the rule to apply to it."""

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ConfigError(f"margin must be >= 0, got {self.margin}")
        if not 0 < self.most_untold <= 1:
            raise ConfigError(f"most_untold must be a share above 0 and at most 1, got {self.most_untold}")


@dataclass(slots=True, kw_only=True)
class DisparityRule:
    """No group of people may get clearly worse lists than the largest group of its column."""

    least_ratio: float = 0.8
    """Smallest allowed ratio of a group's mean metric to the reference's; a group fails when it differs after the
    correction for the number of groups, and its whole interval lies below."""
    required: bool = False
    """Fail, rather than refuse to judge, where no group is large enough or no column is protected."""
    needs: list[str] = field(default_factory=list)
    """Rungs that a bundle must carry for the rule to apply to it."""

    def __post_init__(self) -> None:
        if not 0 < self.least_ratio < 1:
            raise ConfigError(f"least_ratio must lie between 0 and 1, got {self.least_ratio}")


@dataclass(slots=True, kw_only=True)
class Rules:
    """What a gate asks; every rule has a name of your choice."""

    paired: dict[str, PairedRule] = field(default_factory=dict)
    """Ranking metrics against another model on the same people."""
    limits: dict[str, LimitRule] = field(default_factory=dict)
    """Single figures of reports: index recall, parity of graphs, latency."""
    calibration: dict[str, CalibrationRule] = field(default_factory=dict)
    """Probabilities against what happened."""
    value: dict[str, ValueRule] = field(default_factory=dict)
    """Off-policy value on the logged decisions."""
    disparity: dict[str, DisparityRule] = field(default_factory=dict)
    """Groups of people against each other."""

    def empty(self) -> bool:
        """Return whether nothing is asked."""
        return not (self.paired or self.limits or self.calibration or self.value or self.disparity)


@dataclass(slots=True, kw_only=True)
class GateSettings:
    """`playbill gate NEW`: hold an evaluated bundle against the rules, and seal it when it passes all of them.

        playbill gate                                  the bundle exported last, beside the one in use
        playbill gate 0f16bdd2da95 against=7dafaeaefed5
        playbill gate gate=strict                      what cannot be judged fails
        playbill gate gate.paired.not_far_below_best_rival.margin=0.01

    Rules of your own go into a file of conf/gate/, and are called by its name. Every rule is printed with its figure
    and verdict and written to the bundle's report before it is sealed. A rule that the data cannot decide is refused,
    which is no failure unless the rule is `required`. The exit code is 1 when a rule fails.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    bundle: str = LATEST
    """Version of the bundle; `latest` is the one staged last."""
    against: str = CURRENT
    """Version of the bundle that it must have been evaluated beside; `current` is the one in use."""
    gate: Rules = field(default_factory=Rules)
    """A choice of rules: a file of conf/gate/, such as standard or strict. Numbers may be changed here; every change is
    recorded, and `playbill publish` refuses a bundle that was judged by looser rules than the file's."""
    preset: tuple[str, Rules] | None = field(default=None, metadata={"omegaconf_ignore": True})
    """The file of conf/gate/ that was chosen and its rules as they stand there; None where the rules are of no file."""
