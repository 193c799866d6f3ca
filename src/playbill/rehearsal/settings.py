"""Settings of `playbill rehearse`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbill.errors import ConfigError

ALWAYS = ("bestsellers", "segments", "oracle_items", "oracle")
BASELINES = ("uniform", "trending", "item_knn", "ease", "ials")
POLICIES = ("engine", *BASELINES, *ALWAYS)


@dataclass(slots=True, kw_only=True)
class RehearseSettings:
    """Let policies serve the simulated people, each in a world of its own, and compare what people got out of it.

    playbill rehearse                                      an engine with a bundle trained on the world's first days
    playbill rehearse policy=item_knn rounds=8             a baseline, refitted at every round
    playbill rehearse policy=engine+ease retrain=true      several; towers and ranker trained anew at every round
    playbill rehearse world=hard size=tiny policy=uniform rounds=2

    The world writes its log for `size.days` days under its own logging policy; then every policy serves all visits of
    `rounds` rounds from the same start, and what people do comes back to the policy that caused it, and to no other.
    Always in the table: the same bestsellers for everyone, one list a declared segment, and the oracle, which knows
    the truth; once more as oracle_items, with artworks drawn as for everybody else. Nobody who is known is shown again
    what they clicked before, by any policy; who never logs in or does not allow personalisation is not known.

    Written to {home}/rehearsals/{name}: rounds.json, rounds.txt, rounds.png, and every round's log, so that a rehearsal
    that was stopped goes on after its last whole round.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    world: Any = None
    """How people respond: world=easy, fitted or hard."""
    size: Any = None
    """How many they are: size=tiny or small."""
    seed: int = 0
    """Of the world and of every draw."""
    parameters: str = ""
    """YAML file that overlays the chosen world; see conf/world/."""
    name: str = ""
    """Of the rehearsal; empty means {world}-{size}."""
    policy: str = "engine"
    """Who serves besides the three that always do; several are joined with +: engine, uniform, trending, item_knn,
    ease, ials."""
    bundle: str = ""
    """Folder of a bundle for policy=engine; empty means one that is trained on the world's first days."""
    models: list[str] = field(default_factory=lambda: ["two_tower", "ranker"])
    """What is trained for policy=engine; empty exports a bundle of popularity and neighbours alone."""
    training: list[str] = field(default_factory=list)
    """Overrides for `playbill train`, such as epochs=5."""
    retrain: bool = False
    """Train and export anew on the policy's own log before every round but the first; in a process of its own."""
    rounds: int = 5
    """Rounds."""
    most_rounds: int = 20
    """Rounds that the world lasts for: as many can be played later, going on from those that stand."""
    round_days: int = 7
    """Days a round."""
    k: int = 10
    """Items a visit is shown."""
    resamples: int = 1000
    """Bootstrap resamples of the people, for intervals."""
    level: float = 0.95
    """Share of the resamples inside an interval."""
    force: bool = False
    """Begin again although rounds are there."""

    def __post_init__(self) -> None:
        for name in ("rounds", "round_days", "k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.rounds > self.most_rounds:
            raise ConfigError(
                f"rounds is {self.rounds}, and the world lasts for most_rounds={self.most_rounds}; raise it"
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
        if Path(self.name).name != self.name:
            raise ConfigError(f"name is the name of one folder, not a path, got {self.name!r}; home= says where")
        unknown = [p for p in self.policies() if p not in POLICIES]
        if unknown:
            raise ConfigError(f"policy {'+'.join(unknown)}: not known; there are {', '.join(POLICIES)}")
        if self.resamples < 100:
            raise ConfigError(f"resamples must be >= 100 for an interval to mean anything, got {self.resamples}")
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level must lie in 0.5..1, got {self.level}")

    def policies(self) -> list[str]:
        """Return who serves, those that were asked for first."""
        asked = [name for name in self.policy.split("+") if name]
        return list(dict.fromkeys([*asked, *ALWAYS]))
