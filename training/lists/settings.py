"""Settings of `playbill train-lists`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class ListSettings:
    """Learn to put lists in order from numbers of their items and from which item was taken.

    Reads <home>/lists/<name>.npz (arrays numbers [R, C, F] float32, there [R, C] bool, taken [R] int64, part [R] int8:
    0 train, 1 valid, others unread) and leaves <home>/runs/<name>-lists/lists.onnx. Validation picks the epoch; then,
    with `again`, everything is learned once more from both parts.

        playbill train-lists home=var/reproduce/trivago-clicks name=trivago-100k
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    name: str = "trivago-100k"
    """Of the file below <home>/lists, and of the run."""
    hidden: int = 128
    """Width of the MLP's first layer; the second is half as wide."""
    cross_layers: int = 2
    """Layers of the low-rank cross network (DCN-v2)."""
    cross_rank: int = 32
    """Rank of each cross layer's matrix."""
    dropout: float = 0.3
    """Share of inputs dropped while training, 0 <= x < 1."""
    batch_size: int = 128
    """Lists a step."""
    max_epochs: int = 12
    """Passes over the lists at most."""
    learning_rate: float = 0.002
    """Of Adam; it falls to a tenth along a cosine."""
    weight_decay: float = 0.05
    """Decoupled, per step and learning rate."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """One network each; the graph holds them all and gives the mean of their logits."""
    again: bool = True
    """Learn from training and validation lists together, as many epochs as validation found best."""
    force: bool = False
    """Train again although nothing changed."""

    def __post_init__(self) -> None:
        for name in ("hidden", "cross_layers", "cross_rank", "batch_size", "max_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise ConfigError(
                f"learning_rate must be > 0 and weight_decay >= 0, got {self.learning_rate} and {self.weight_decay}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds must be different numbers >= 0, at least one, got {self.seeds}")
