"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from playbill.errors import ConfigError


class Provider(Enum):
    """Where graphs run."""

    auto = "auto"  # CUDA where the installed runtime offers it and it works, else the CPU
    cpu = "cpu"
    cuda = "cuda"  # as auto, for saying it aloud; `require_gpu` is what forbids the CPU


@dataclass(slots=True, kw_only=True)
class EngineSettings:
    """How an engine uses its machine. What it answers stands in the bundle's policy."""

    provider: Provider = Provider.auto
    """auto, cpu or cuda."""
    require_gpu: bool = False
    """Fail to open rather than run a graph on the CPU."""
    threads: int = 1
    """Threads of one graph run and of one index search. Requests are the parallelism: add replicas, not threads."""
    batch_rows: int = 256
    """Requests answered together; larger batches are cut."""
    rank_rows: int = 16_384
    """Candidates in one run of the ranker, at least one request's."""
    filter_cache_mb: int = 256
    """Memory for filters made ready, the least used go first; a filter asked for again costs nothing while it stands
    there."""
    without_state: bool = False
    """Answer as for somebody unknown while the store cannot be read, rather than fail: for requests that somebody waits
    for."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch_rows", "rank_rows", "filter_cache_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"engine.{name} is {getattr(self, name)}, expected at least 1")
        if self.require_gpu and self.provider is Provider.cpu:
            raise ConfigError("engine.require_gpu=true with engine.provider=cpu cannot be had; drop one of them")
