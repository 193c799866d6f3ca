"""Settings of the creative heads (`playbill train model=creative`). Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.errors import ConfigError
from playbill.training.settings import Tables

MOST_FEATURES = 32
"""Largest width of the features that the Bayesian last layer weighs: its matrices are inverted while people wait."""


@dataclass(slots=True, kw_only=True)
class Creative:
    """Creative heads: the logit of a title, and the creative's own, centred over what could have been shown instead."""

    name: str = "creative"
    """Ends the run's folder name; leave it."""
    columns: list[str] | None = None
    """Columns of the creatives table that become features; null takes every unprotected one that fits, [] none."""
    text: list[str] | None = None
    """Its text columns read as hashed words, each by itself; null takes `text` where words repeat, [] none."""
    text_width: int = 32
    """Numbers in the vector of a text, 1 to 256."""
    reward_event: str = "click"
    """Event that answers a decision; it names it, or another one at the same request and position."""
    within_h: float = 24.0
    """Hours after a decision in which the event counts; decisions of the log's last hours are left out."""
    policy: str = ""
    """Only decisions of this logging policy; empty = all of kind creative whose creative belongs to an item."""
    field_dim: int = 8
    """Width of the tables of tags."""
    main: int = 4
    """Features that a creative has for everybody."""
    match: int = 8
    """Features in which person and creative meet, besides one likeness for each column of content."""
    own_sd: float = 0.3
    """Spread, in log-odds, of what a creative has beyond its content, as far as the log does not say it better."""
    item_sd: float = 1.0
    """The same of titles, beyond what the towers say of person and item."""
    weight_sd: float = 0.3
    """Spread of the last layer's weights before any data: the prior that the Bayesian layer starts from."""
    max_rows: int = 2_000_000
    """Newest decisions used at most."""
    max_positions: int = 50
    """Places of a slate that have a level of their own; those behind share the last one's."""
    batch_size: int = 4096
    """Decisions a step, all processes together."""
    max_epochs: int = 20
    """Passes over the decisions at most."""
    patience_epochs: int = 4
    """Stop after so many epochs without a better validation metric; 0 = never."""
    learning_rate: float = 0.003
    """Of Adam; it falls to a tenth along a cosine over max_epochs."""
    weight_decay: float = 1.0
    """Decoupled, per step and learning rate, on all weights but those whose spread stands above."""

    def __post_init__(self) -> None:
        for name in ("text_width", "main", "match", "max_rows", "max_positions", "batch_size", "max_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be >= 1, got {getattr(self, name)}")
        if self.text_width > 256:
            raise ConfigError(f"model.text_width must be 1 to 256, got {self.text_width}")
        if self.field_dim < 4 or self.field_dim % 4:
            raise ConfigError(f"model.field_dim must be a multiple of 4, got {self.field_dim}")
        if self.main + self.match > MOST_FEATURES - 1:
            raise ConfigError(
                f"model.main ({self.main}) and model.match ({self.match}) leave no room for likenesses: the last layer "
                f"weighs at most {MOST_FEATURES} features; lower one"
            )
        for name in ("own_sd", "item_sd", "weight_sd", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"model.{name} must be > 0, got {getattr(self, name)}")
        if self.weight_decay < 0 or self.patience_epochs < 0 or not 0 < self.within_h < 1e9:
            raise ConfigError(
                "model.weight_decay and model.patience_epochs must be >= 0 and model.within_h above 0, got "
                f"{self.weight_decay}, {self.patience_epochs} and {self.within_h}"
            )

    @property
    def tables(self) -> Tables:
        """Replicated: a step of many decisions touches most creatives."""
        return Tables.dense
