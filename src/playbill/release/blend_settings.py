"""Settings of the job `blend`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from playbill.dataset.settings import SplitSettings
from playbill.errors import ConfigError
from playbill.release.settings import LATEST, RivalSettings, check_metric


@dataclass(slots=True, kw_only=True)
class BlendSettings:
    """`playbill blend`: one order out of several retrievers, fitted on people that none of them has learned from.

    Scores each member for the people of the validation part, fits the weights, judges them on people whose answers
    they were not fitted on, and says what came of it on the test part. Where no blend is at least as good as the best
    member, that one is kept alone, and the report says so. `playbill export blend=NAME` puts it into a bundle.

        playbill blend tables=ml-100k split.kind=leave_last_out     all that the latest bundle can serve
        playbill blend members=[tower,transitions]                  two of it
        playbill blend scores=[../sasrec]                           and a folder of somebody else's scores beside them

    What such a folder holds is described on top of src/playbill/blend/scores.py.
    """

    home: str = "var"
    """Root of all that Playbill writes; this job writes <home>/blends/<name>."""
    tables: str = "ml-100k"
    """Name of the table folder, below home/tables."""
    name: str = "blend"
    """Of the blend."""
    bundle: str | None = LATEST
    """Version of the bundle whose towers take part; `latest` is the one staged last; null = no towers."""
    split: SplitSettings = field(default_factory=SplitSettings)
    """What is held out; a bundle trained on another split is refused."""
    members: list[str] = field(default_factory=list)
    """Of tower, item_knn, transitions, ease, ials, trending, popularity; empty = all that can be had."""
    scores: list[str] = field(default_factory=list)
    """Folders of saved scores that take part beside them; such a blend can be measured, but no bundle can serve it."""
    depth: int = 200
    """Items of each member's list that count; also the most that each retriever proposes to the blend when serving."""
    metric: str = "ndcg_at_10"
    """Decides which form of blend is best, and whether it is at least as good as the best member."""
    ks: list[int] = field(default_factory=lambda: [10, 20])
    """Cut-offs of the metrics."""
    folds: int = 5
    """Parts that the people are cut into: each is judged by weights fitted on the others."""
    l2: list[float] = field(default_factory=lambda: [0.001, 0.01])
    """Ridge penalties to try, on weights of features of unit deviation."""
    resamples: int = 2000
    """Bootstrap resamples of the people."""
    level: float = 0.95
    """Share of the resamples inside an interval."""
    seed: int = 0
    """Of folds and resamples."""
    rivals: RivalSettings = field(default_factory=RivalSettings)
    """What the baselines are tuned over."""
    force: bool = False
    """Blend again although nothing changed."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ConfigError(f"name must be letters, digits, '.', '_' and '-', got {self.name!r}")
        check_metric(self.metric, "metric")
        if not self.ks or min(self.ks) < 1 or int(self.metric.rpartition("_at_")[2]) not in self.ks:
            raise ConfigError(f"ks must be cut-offs >= 1 with that of metric={self.metric} among them, got {self.ks}")
        if self.depth < max(self.ks):
            raise ConfigError(f"depth must be at least the longest cut-off, {max(self.ks)}, got {self.depth}")
        if self.folds < 2:
            raise ConfigError(f"folds must be >= 2, or nobody is judged by weights of others, got {self.folds}")
        if not self.l2 or min(self.l2) < 0:
            raise ConfigError(f"l2 must list penalties >= 0, at least one, got {self.l2}")
        if self.resamples < 100 or not 0.5 <= self.level < 1 or self.seed < 0:
            raise ConfigError(
                f"resamples must be >= 100, level in 0.5..1 and seed >= 0, got {self.resamples}, {self.level} and "
                f"{self.seed}"
            )
