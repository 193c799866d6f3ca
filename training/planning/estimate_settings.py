"""Settings of `playbill doctor estimate=...`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError
from playbill.features.settings import FeatureSettings
from playbill.training.planning.settings import Cluster
from playbill.training.ranking_settings import Ranker
from playbill.training.settings import TwoTower

SIDES = ("user", "item", "context")


@dataclass(slots=True, kw_only=True)
class Estimate:
    """What is to be trained, and on what: tables that are there, or numbers that are declared."""

    tables: str | None = None
    """Prepared tables whose features the model reads: <home>/tables/<tables>; null = what `items` and `fields` say."""
    items: int = 0
    """Items of the catalogue; with `tables`, other than there are today."""
    people: int = 0
    """People of the log. No table of a model grows with them: only the log in the machines' memory does."""
    events: int = 0
    """Events of the log; with `tables`, other than there are today."""
    fields: dict[str, int] = field(default_factory=dict)
    """Without `tables`: values of each column that the model reads, such as user_city: 5000 or item_genre: 30."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """What enters the model, as in `playbill train`."""
    cluster: Cluster = field(default_factory=Cluster)
    """What the model is to be trained on."""
    host_memory: bool = False
    """Let the plan put rows into the machines' memory, cached on the GPU (slower; training itself does not use it)."""

    def __post_init__(self) -> None:
        for name in ("items", "people", "events"):
            if getattr(self, name) < 0:
                raise ConfigError(f"estimate.{name} must be >= 0, got {getattr(self, name)}")
        if self.tables is not None and self.fields:
            raise ConfigError("estimate.fields has no effect beside estimate.tables, whose columns are read")
        for name, values in self.fields.items():
            side, _, column = name.partition("_")
            if side not in SIDES or not column:
                raise ConfigError(f"estimate.fields.{name}: a name begins with user_, item_ or context_")
            if values < 1:
                raise ConfigError(f"estimate.fields.{name} must be >= 1, got {values}")


@dataclass(slots=True, kw_only=True)
class EstimateTowers(Estimate):
    """The two towers of `playbill train`.

    playbill doctor estimate=two_tower estimate.tables=ml-100k
    playbill doctor estimate=two_tower estimate.items=1000000000 estimate.model.loss=mixed estimate.model.tables=fused
    """

    model: TwoTower = field(default_factory=TwoTower)
    """Fields as in `playbill train model=two_tower`; `batch_tokens` is of all GPUs together."""


@dataclass(slots=True, kw_only=True)
class EstimateRanker(Estimate):
    """The ranker of `playbill train model=ranker`.

    playbill doctor estimate=ranker estimate.items=2000000 estimate.fields.item_shop=50000 estimate.cluster.hosts=2
    """

    model: Ranker = field(default_factory=Ranker)
    """Fields as in `playbill train model=ranker`; `batch_size` is of all GPUs together."""
