"""Settings of the release jobs: evaluate, gate, publish, reproduce."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.dataset.settings import SplitSettings
from playbill.errors import ConfigError
from playbill.release.rival_settings import RivalSettings as RivalSettings
from playbill.release.rival_settings import check_metric as check_metric

LATEST = "latest"


@dataclass(slots=True, kw_only=True)
class EvaluateSettings:
    """`playbill evaluate`: one list for each person at the split, whole catalogue, all earlier events removed."""

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of the table folder, below home/tables."""
    bundle: str = LATEST
    """Version of the bundle; `latest` is the one staged last."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """What is held out; a bundle trained on another split is refused, for it may have seen what it is asked."""
    ks: list[int] = field(default_factory=lambda: [10, 20])
    """Cut-offs of the metrics."""
    resamples: int = 2000
    """Bootstrap resamples of the users."""
    level: float = 0.95
    """Share of the resamples inside an interval."""
    seed: int = 0
    """Of the resamples."""
    rivals: RivalSettings = field(default_factory=RivalSettings)
    """What the baselines are tuned over."""
    force: bool = False
    """Measure again although nothing changed."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ConfigError(f"ks must be cut-offs >= 1, got {self.ks}")
        if self.resamples < 100:
            raise ConfigError(f"resamples must be >= 100 for an interval to mean anything, got {self.resamples}")
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level must lie in 0.5..1, got {self.level}")
        if int(self.rivals.tune_for.rpartition("_at_")[2]) > max(self.ks):
            raise ConfigError(
                f"rivals.tune_for={self.rivals.tune_for} looks deeper than the longest cut-off of {self.ks}"
            )


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
    needs: list[str] = field(default_factory=list)
    """Rungs that a bundle must carry for the rule to apply to it."""

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ConfigError(f"the rule on {self.report}.{self.figure} has no limit; give at_least or at_most")


@dataclass(slots=True, kw_only=True)
class GateSettings:
    """`playbill gate`: hold an evaluated bundle against the rules, and seal it when it passes all of them."""

    home: str = "var"
    """Root of all that Playbill writes."""
    bundle: str = LATEST
    """Version of the bundle; `latest` is the one staged last."""
    paired: dict[str, PairedRule] = field(default_factory=dict)
    """Rules against another model, by name."""
    limits: dict[str, LimitRule] = field(default_factory=dict)
    """Rules on a reported figure, by name."""


@dataclass(slots=True, kw_only=True)
class PublishSettings:
    """`playbill publish`: make a sealed bundle the current one."""

    home: str = "var"
    """Root of all that Playbill writes."""
    bundle: str = LATEST
    """Version of the bundle; `latest` is the one staged last."""
    force: bool = False
    """Publish a bundle that did not pass its gate; needs a reason, and both are recorded."""
    reason: str = ""
    """Why it goes out nevertheless, for whoever reads the record."""

    def __post_init__(self) -> None:
        if self.force and not self.reason.strip():
            raise ConfigError('force=true goes past the gate and is recorded: say why with reason="..."')


@dataclass(slots=True, kw_only=True)
class ReproduceSettings:
    """`playbill reproduce NAME`: rerun a published protocol, rivals beside ours, and write down what came out.

    Each seed is trained, exported and scored by the same commands that anybody would type. Stopped in the middle and
    started again, it goes on.

        playbill reproduce ml-100k-leave-last-out                            three seeds, ten minutes
        playbill reproduce ml-1m-leave-last-out data=../shared/data          files that are here already
        playbill reproduce ml-1m-leave-last-out effort=best                  several runs side by side and a blend
    """

    home: str = "var"
    """Root of all that Playbill writes; this job keeps to <home>/reproduce/<name>."""
    name: str = "ml-100k-leave-last-out"
    """The protocol: ml-100k-leave-last-out, ml-100k-global-time, ml-1m-leave-last-out, ml-1m-global-time or
    amazon-toys-leave-last-out."""
    data: str | None = None
    """Folder that holds the sources' folders (ml-100k, ml-1m, amazon-toys); null fetches what can be fetched."""
    effort: str = "fast"
    """fast: one run a seed. best: `members` runs a seed in one bundle, and a blend with the baselines."""
    members: int = 2
    """effort=best: runs that stand side by side in one pair of towers."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """One training each; figures are means over them."""
    parallel: int = 2
    """Trainings at once, each on one thread; 1 = one after the other on all cores."""
    train: list[str] = field(default_factory=list)
    """Further arguments of `playbill train`, such as model=two_tower or features.item=[]."""
    ks: list[int] = field(default_factory=lambda: [10, 20])
    """Cut-offs of the metrics; 10 and 20 are the published ones."""
    resamples: int = 2000
    """Bootstrap resamples of the people."""
    level: float = 0.95
    """Share of the resamples inside an interval."""
    rivals: RivalSettings = field(default_factory=RivalSettings)
    """What the baselines are tuned over."""
    results: str | None = None
    """Folder of the json; null = tests/benchmarks/results in a checkout, else this job's folder."""
    force: bool = False
    """Train again although finished runs are there."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds must be different numbers >= 0, at least one, got {self.seeds}")
        if not {10, 20} <= set(self.ks) or min(self.ks) < 1:
            raise ConfigError(f"ks must hold 10 and 20, which published figures are for, and be >= 1, got {self.ks}")
        if self.effort not in ("fast", "best"):
            raise ConfigError(f"effort must be fast or best, got {self.effort!r}")
        if self.members < 1 or self.parallel < 1:
            raise ConfigError(f"members and parallel must be >= 1, got {self.members} and {self.parallel}")
        if self.resamples < 100 or not 0.5 <= self.level < 1:
            raise ConfigError(f"resamples must be >= 100 and level in 0.5..1, got {self.resamples}, {self.level}")
