"""Parts of an engine that other processes hold: a ranker that needs a GPU, an index that one machine is too small for.

The engine goes about them as about its own. It waits no longer than a request's budget leaves, and does without what
does not answer: without the ranker on a cheaper rung, without a part of the index by what the others find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from playbill.index.sharded import Send


class Graph(Protocol):
    """What runs a graph, here (`Model`) or in another process.

    Attributes:
        name, inputs, outputs, provider: see `Model`.
    """

    name: str
    inputs: list[str]
    outputs: list[str]
    provider: str

    @property
    def device(self) -> str: ...

    def run(self, arrays: dict[str, Any], outputs: list[str], within_s: float | None = None) -> list[Any]:
        """Return the named outputs; raise where there is no answer within so many seconds."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What an engine finds in other processes.

    Attributes:
        ranker: runs the bundle's ranker; None: it runs here.
        index: reaches the parts of the bundle's index; None: it is searched here.
        parts: how many those are.
    """

    ranker: Graph | None = None
    index: Send | None = None
    parts: int = 0


HERE = Elsewhere()
