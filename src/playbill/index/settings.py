"""Settings of the index room."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from playbill.errors import ConfigError


class Kind(Enum):
    """How item vectors are kept."""

    auto = "auto"  # by catalogue size, see `choose`
    flat = "flat"  # every vector as it is: exact, and the time of a search grows with the catalogue
    ivf_sq8 = "ivf_sq8"  # lists of 8-bit vectors, the best re-scored exactly: a quarter of the memory
    ivf_pq = "ivf_pq"  # lists of 4-bit product codes, the best re-scored exactly: for more than 2M items
    hnsw = "hnsw"  # a graph, for catalogues that hardly change: slow to build, the largest, weakest under filters


@dataclass(slots=True, kw_only=True)
class IndexSettings:
    """How items.faiss is built and what it must reach."""

    kind: Kind = Kind.auto
    """flat, ivf_sq8, ivf_pq or hnsw; auto takes flat, ivf_sq8 or ivf_pq by the number of items."""
    num_lists: int = 0
    """Inverted lists of the ivf kinds; 0 = 4 * sqrt(items), fewer where a list would get under 39 items."""
    links: int = 32
    """Links of an item in the graph of hnsw; more make it larger, slower to build and better."""
    recall_k: int = 200
    """k of the recall that is measured against exact search."""
    recall_floor: float = 0.95
    """Least recall at `recall_k`, 0..1; the search's effort is tuned to it and the build fails below it."""
    exact_rows: int = 100_000
    """Filters that leave fewer items are searched exactly, in a millisecond or two; so are those that leave less than a
    tenth, unless the index was found to keep the floor for less."""
    sample_queries: int = 512
    """Queries used at most: two thirds of them for tuning, the last for the recall that is reported."""
    seed: int = 0
    """Seed of the clustering and of the sample."""
    threads: int = 0
    """Threads of a build; 0 = all cores."""

    def __post_init__(self) -> None:
        if not 0 <= self.recall_floor <= 1:
            raise ConfigError(f"index.recall_floor must be in 0..1, got {self.recall_floor}")
        lows = (
            ("num_lists", 0),
            ("links", 2),
            ("recall_k", 1),
            ("exact_rows", 0),
            ("sample_queries", 1),
            ("threads", 0),
            ("seed", 0),
        )
        for name, low in lows:
            if getattr(self, name) < low:
                raise ConfigError(f"index.{name} must be at least {low}, got {getattr(self, name)}")
