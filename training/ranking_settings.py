"""Settings of the ranker. Imports nothing heavy: `playbill train --help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.dataset.tasks import Task, check_tasks
from playbill.errors import ConfigError
from playbill.training.settings import Tables, check_model


def default_tasks() -> list[Task]:
    """Return what any log of events can teach: which item is taken up, and whether it is valued at 4 or more."""
    return [Task(name="interact"), Task(name="like", parent="interact", threshold=4.0, weight=0.5)]


@dataclass(slots=True, kw_only=True)
class Ranker:
    """Ranking: cross network, MLP and attention over history, item, context and retrieval score, for declared tasks.

    Learns from impressions where the tables hold decisions about items, else from events and items that a person never
    touched; after an absence as its towers do (their away_days). The tasks of one model share all but their last
    layers; how much of each a surface wants is its policy.
    """

    name: str = "ranker"
    """Ends the run's folder name; leave it."""
    tasks: list[Task] = field(default_factory=default_tasks)
    """What is predicted, e.g. '[{name: click, events: [click]}, {name: buy, parent: click, events: [purchase]}]'; the
    first decides the order while training. Fields: src/playbill/dataset/tasks.py."""
    impressions: bool | None = None
    """Learn from the slates of the decisions table; null: where there are any."""
    dim: int = 32
    """Width of the item table."""
    field_dim: int = 8
    """Width of the tables of all other features."""
    heads: int = 4
    """Pooled views of the history that each candidate is compared with; 0 = the history is not read that way."""
    attention: int = 0
    """Width of the attention that each candidate pays to the history; 0 = none."""
    cross_layers: int = 2
    """Layers of the low-rank cross network (DCN-v2)."""
    cross_rank: int = 32
    """Rank of each cross layer's matrix."""
    hidden: int = 128
    """Width of the MLP's two layers (the second is half as wide)."""
    experts: int = 0
    """MLPs that each task weighs by a gate of its own (MMoE); 0 = one for all tasks."""
    dropout: float = 0.2
    """Share of the MLP's inputs dropped while training, 0 <= x < 1."""
    position_tower: bool = True
    """Impressions: what a position adds to the first task is learned apart, and left out when serving."""
    unknown_share: float = 0.02
    """Share of item ids replaced by the unknown item while training, so that new items can stand on content alone."""
    stale_share: float = 0.7
    """Events: share of rows whose history is cut at a random earlier event: teaches what comes later, not next."""
    empty_share: float = 0.05
    """Events: share of rows whose history is left out: teaches what to show to a newcomer."""
    half_life_days: float = 14.0
    """Age at which a training row's weight has halved, down to weight_floor; 0 = all rows weigh the same."""
    weight_floor: float = 0.1
    """Weight of the oldest training rows relative to the newest, 0 <= x <= 1."""
    departure_weight: float = 0.1
    """Events: weight of the loss that keeps the order near the retrieval's: more trusts the retrieval more, 0 not at
    all."""
    shown_departure_weight: float = 0.01
    """Impressions: the same. What was shown an earlier policy chose, and few of it was taken up: it says little of how
    all that retrieval brings should be ordered; too much of it keeps what positions did to the retrieval's order."""
    uniform_negatives: int = 8
    """Events: items a person never touched, drawn evenly from the catalogue for each training row."""
    hard_negatives: int = 12
    """Events: items a person never touched, drawn from the top of the tower's list for each training row."""
    hard_pool: int = 100
    """How far down the tower's list hard negatives are drawn, and how many candidates validation re-ranks."""
    later_share: float = 0.5
    """Share of the training rows, the latest, that the ranker learns from; a tower of the rows before scores them."""
    max_rows: int = 200_000
    """Newest of these rows used at most; of slates where it learns from impressions."""
    leak_auc: float = 0.99
    """Refuse to train where one column alone tells a task's label apart this well; 1 = never."""
    tables: Tables = Tables.dense
    """dense or fused."""
    batch_size: int = 512
    """Positive examples (or slates) a step, all processes together; each brings its negatives."""
    max_epochs: int = 5
    """Passes over the training rows at most."""
    patience_epochs: int = 2
    """Stop after so many epochs without a better validation metric; 0 = never."""
    learning_rate: float = 0.002
    """Of Adam, for dense parameters; it falls to a tenth along a cosine over max_epochs."""
    table_learning_rate: float = 0.02
    """Of row-wise Adagrad, when tables=fused; falls along the same cosine."""
    weight_decay: float = 0.0
    """Decoupled, per step and learning rate, on dense parameters (on the tables too when tables=dense)."""

    def __post_init__(self) -> None:
        check_model(self)
        check_tasks(self.tasks)
        for name in ("batch_size", "cross_layers", "cross_rank", "hard_pool", "max_rows", "uniform_negatives"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("heads", "attention", "experts", "departure_weight", "shown_departure_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"model.{name} must be >= 0, got {getattr(self, name)}")
        if not 0 <= self.hard_negatives <= self.hard_pool:
            raise ConfigError(f"model.hard_negatives must be in 0..{self.hard_pool}, got {self.hard_negatives}")
        if not 0 < self.later_share < 1:
            raise ConfigError(f"model.later_share must be above 0 and below 1, got {self.later_share}")
        if not 0.5 < self.leak_auc <= 1:
            raise ConfigError(f"model.leak_auc must be in (0.5, 1], got {self.leak_auc}")
        if self.impressions is not True and any(task.returns and task.parent is None for task in self.tasks):
            raise ConfigError(
                "model.tasks: a return without parent can be learned from impressions alone: every slate is followed "
                "by a return or not, but of an item never shown nobody knows; give it a parent, or impressions=true"
            )
