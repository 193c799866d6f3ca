"""Settings of the index room."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from playbill.errors import ConfigError


class Kind(Enum):
    """How item vectors are kept."""

    AUTO = "auto"  # by catalogue size, see `choose`
    FLAT = "flat"  # every vector as it is: exact, 1-4 ms at 100k items
    IVF_SQ8 = "ivf_sq8"  # lists of 8-bit vectors: 80 times faster than flat at 1M items, a quarter of the memory
    IVF_PQ = "ivf_pq"  # lists of 4-bit product codes, the best re-scored exactly: for more than 2M items


@dataclass(slots=True, kw_only=True)
class IndexSettings:
    """How items.faiss is built and what it must reach."""

    kind: Kind = Kind.AUTO
    """flat, ivf_sq8 or ivf_pq; auto takes flat up to 200,000 items, ivf_sq8 up to 2,000,000, ivf_pq above."""
    num_lists: int = 0
    """Inverted lists of the ivf kinds; 0 = 4 * sqrt(items), fewer where a list would get under 39 items."""
    recall_k: int = 100
    """k of the recall that is measured against exact search."""
    recall_floor: float = 0.95
    """Least recall at `recall_k`, 0..1; nprobe is tuned to it and the build fails below it."""
    sample_queries: int = 512
    """Queries used for tuning and measuring."""
    seed: int = 0
    """Seed of the clustering and of the sample."""
    threads: int = 0
    """Threads of a build; 0 = all cores."""

    def __post_init__(self) -> None:
        if not 0 <= self.recall_floor <= 1:
            raise ConfigError(f"index.recall_floor must be in 0..1, got {self.recall_floor}")
        for name, low in (("num_lists", 0), ("recall_k", 1), ("sample_queries", 1), ("threads", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"index.{name} must be at least {low}, got {getattr(self, name)}")
