"""A ranker in another process, as the engine sees it: the same call as of its own. Knows no Ray; see `app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from playbill.bundle.open import Bundle
from playbill.serving.ranker import RankAsk, Ranked

# Returns the outputs, or why there are none; raises TimeoutError after so many seconds (None: as long as it takes).
Call = Callable[[RankAsk, float | None], Ranked | str]


class RankerAway(Exception):
    """There is no ranker to answer; the engine goes on without it."""


class RankerLate(RankerAway, TimeoutError):
    """The ranker did not answer in time."""


@dataclass(slots=True)
class RemoteRanker:
    """The ranker of one bundle; a `Graph`.

    Attributes:
        provider: that of the processes that run it, as they said last.
    """

    bundle: str
    inputs: list[str]
    outputs: list[str]
    call: Call
    provider: str = "unknown"
    name: str = field(default="ranker", init=False)

    @property
    def device(self) -> str:
        return "gpu" if self.provider.startswith("CUDA") else "cpu"

    def run(self, arrays: dict[str, np.ndarray], outputs: list[str], within_s: float | None = None) -> list[np.ndarray]:
        """Return the named outputs.

        Raises:
            RankerAway: no answer in time (RankerLate), or no ranker.
        """
        needed = {name: arrays[name] for name in {*self.inputs, "cand_user"}}
        try:
            answer = self.call(RankAsk(self.bundle, needed, outputs), within_s)
        except TimeoutError:
            raise RankerLate(f"no answer within {(within_s or 0) * 1e3:.0f} ms") from None
        if isinstance(answer, str):
            raise RankerAway(answer)
        self.provider = answer.provider
        return answer.outputs


def remote_ranker(bundle: Bundle, call: Call, provider: str) -> RemoteRanker | None:
    """Return the ranker of a bundle, None where it carries none."""
    signature = bundle.manifest.models.get("ranker")
    if signature is None:
        return None
    return RemoteRanker(bundle.version, list(signature.inputs), list(signature.outputs), call, provider)
