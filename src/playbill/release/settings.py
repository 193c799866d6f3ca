"""Settings of the release jobs evaluate, publish and reproduce; those of gate stand in `gate_settings`."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.dataset.settings import SplitSettings
from playbill.errors import ConfigError
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.release.rival_settings import RivalSettings as RivalSettings
from playbill.release.rival_settings import check_metric as check_metric

LATEST = "latest"
CURRENT = "current"


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
    against: str = CURRENT
    """Version of a bundle that is asked the same beside it; `current` is the one in use."""
    latency_requests: int = 100
    """Requests of the fixed set that is timed."""
    least_group: int = 30
    """Groups of fewer people are named and not compared."""
    value: OffPolicyQuestion = field(default_factory=OffPolicyQuestion)
    """Which logged decisions, with which reward, say what the bundle's order would have been worth; `target` is not
    read."""
    value_requests: int = 2000
    """Logged requests of the test part that are asked again at most; 0 leaves the value out."""
    force: bool = False
    """Measure again although nothing changed."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ConfigError(f"ks must be cut-offs >= 1, got {self.ks}")
        if self.resamples < 100:
            raise ConfigError(f"resamples must be >= 100 for an interval to mean anything, got {self.resamples}")
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level must lie in 0.5..1, got {self.level}")
        if self.latency_requests < 1 or self.least_group < 2 or self.value_requests < 0:
            raise ConfigError(
                "latency_requests must be >= 1, least_group >= 2 and value_requests >= 0, got "
                f"{self.latency_requests}, {self.least_group} and {self.value_requests}"
            )
        if int(self.rivals.tune_for.rpartition("_at_")[2]) > max(self.ks):
            raise ConfigError(
                f"rivals.tune_for={self.rivals.tune_for} looks deeper than the longest cut-off of {self.ks}"
            )


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
    trial: str | None = None
    """canary or shadow: let the servers of this home try it beside the bundle in use, and take it on or send it back by
    what they see; null: make it the current one at once."""
    share: float = 0.1
    """Of a trial: of the people (canary) or requests (shadow) that it is asked for, above 0 up to 1."""
    least: int = 500
    """Of a trial: answers before it is judged."""
    most_failed: float = 0.01
    """Of a trial: share of answers that may fail, or stand on a lower rung, beyond that of the bundle in use."""
    slower: float = 1.5
    """Of a trial: times the 95th percentile of the bundle in use that its own may be."""
    agree: float = 0.2
    """Of a trial: share of the first ten places that both bundles' answers must have in common on average."""
    minutes: float = 60.0
    """Of a trial: after which it is sent back for want of requests."""

    def __post_init__(self) -> None:
        if self.force and not self.reason.strip():
            raise ConfigError('force=true goes past the gate and is recorded: say why with reason="..."')
        if self.trial not in (None, "canary", "shadow"):
            raise ConfigError(f"trial: expected canary or shadow, got {self.trial!r}")
        if not 0 < self.share <= 1 or self.least < 1 or not 0 <= self.most_failed <= 1:
            raise ConfigError(
                f"expected share above 0 up to 1, least >= 1 and most_failed in 0..1, got {self.share:g}, {self.least} "
                f"and {self.most_failed:g}"
            )
        if self.slower < 1 or not 0 <= self.agree <= 1 or not 0 < self.minutes < 1e6:
            raise ConfigError(
                f"expected slower >= 1, agree in 0..1 and minutes above 0, got {self.slower:g}, {self.agree:g} and "
                f"{self.minutes:g}"
            )


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
    amazon-toys-leave-last-out; of ranking: ml-1m-likes-frozen, ml-1m-likes-running,
    ml-100k-likes-frozen or trivago-clicks."""
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
    """Folder of the json; null = <home>/reproduce/<name>."""
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
