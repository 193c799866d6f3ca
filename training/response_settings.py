"""Settings of the model of answers. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class Response:
    """Answers: how likely somebody who tries an item likes it, from all they answered before and from tallies.

    It learns from events that have a value, the answered ones, and from nothing else: no negatives are drawn.
    """

    name: str = "response"
    """Ends the run's folder name; leave it."""
    like_threshold: float = 4.0
    """An event whose value is at least this is a like."""
    beside: list[float] = field(default_factory=list)
    """Further thresholds of the value that are learned beside: they teach what one threshold cannot."""
    beside_weight: float = 0.3
    """Of their mean loss."""
    frozen: bool = False
    """Learn as a model that is asked long after it was made: each person's history ends at a random earlier row. false:
    every row knows all that came before it."""
    half_lives_days: list[float] = field(default_factory=lambda: [30.0, 180.0])
    """Fading tallies of items."""
    dim: int = 64
    """Width of the item table and of the attention."""
    field_dim: int = 8
    """Width of the tables of all other features."""
    heads: int = 4
    """Attention heads."""
    cross_layers: int = 2
    """Layers of the low-rank cross network (DCN-v2)."""
    cross_rank: int = 32
    """Rank of each cross layer's matrix."""
    hidden: int = 256
    """Width of the MLP's first layer; the second is half as wide."""
    dropout: float = 0.2
    """Share of inputs dropped while training, 0 <= x < 1."""
    block: int = 256
    """Rows of one person that are learned from together."""
    batch_tokens: int = 4096
    """Rows a step."""
    max_epochs: int = 6
    """Passes over the training rows."""
    learning_rate: float = 0.002
    """Of Adam; it rises over a hundred steps and falls to a tenth along a cosine."""
    weight_decay: float = 0.01
    """Decoupled, per step and learning rate, not on the item table."""
    table_decay: float = 1e-5
    """Of the square of the item vectors that a step reads, added to the loss."""
    averaging: float = 0.998
    """Weights that are validated and used are a running mean with this memory; 0 = off."""

    def __post_init__(self) -> None:
        for name in ("dim", "field_dim", "heads", "cross_layers", "cross_rank", "block", "batch_tokens", "max_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be >= 1, got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ConfigError(f"model.dim ({self.dim}) must be a multiple of model.heads ({self.heads})")
        if self.hidden < 2:
            raise ConfigError(f"model.hidden must be >= 2, got {self.hidden}")
        for name in ("dropout", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("beside_weight", "weight_decay", "table_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"model.{name} must be >= 0, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"model.learning_rate must be > 0, got {self.learning_rate}")
        if any(not h > 0 for h in self.half_lives_days):
            raise ConfigError(f"model.half_lives_days must be > 0, got {list(self.half_lives_days)}")
        if self.like_threshold in self.beside or len(set(self.beside)) != len(self.beside):
            raise ConfigError(f"model.beside names a threshold twice: {self.like_threshold} and {list(self.beside)}")
