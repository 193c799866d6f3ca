"""How long a fixed set of requests takes, one at a time, beside the bundle in use: same requests, same run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.measure.bootstrap import Interval, intervals
from playbill.release.protocol import Asked
from playbill.release.roads import CPU, fill, request_of
from playbill.state.store import Store

_NOBODY = 10
_REPEATS = 3  # the quickest counts: whatever else the machine does only adds


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle's milliseconds a request, one thread."""

    bundle: str
    median_ms: float
    p90_ms: float
    p99_ms: float


class Latency(msgspec.Struct, kw_only=True):
    """`report/latency.json`.

    Attributes:
        requests: asked one at a time, `k` items each; the same people at the same moment for every bundle.
        new: of the bundle that is evaluated.
        current: of the bundle in use; None where there is none.
        ratio: geometric mean over requests of new / current, with its interval.
    """

    requests: int
    k: int
    new: Timing
    current: Timing | None = None
    ratio: Interval | None = None


def measure_latency(
    bundles: Sequence[Bundle], tables: Path, dataset: Dataset, asked: Asked, *, requests: int, k: int, seed: int
) -> Latency:
    """Return what the requests take.

    Args:
        bundles: the new one, and the one in use if there is one.
        tables: folder that the dataset was opened from.
        asked: people to choose from; some requests of nobody known are among the set.
        requests: how many of them are asked; all where there are fewer.
        k: items wanted.
        seed: chooses them, so that a set stays the same from one release to the next.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(asked))[:requests])
    wanted = [request_of(dataset, asked, row, k) for row in rows.tolist()]
    now = int(np.asarray(dataset.pool.at).max(initial=0))
    wanted += [Request(request_id=f"nobody-{number}", k=k, at=now) for number in range(_NOBODY)]
    with (
        tempfile.TemporaryDirectory(prefix="playbill-latency-") as folder,
        Store.open(Path(folder) / "state") as store,
    ):
        fill(store, tables, dataset, asked)
        engines = [Engine.open(bundle, store, CPU) for bundle in bundles]
        took = np.stack([_round(engines, wanted) for _ in range(_REPEATS)]).min(0)
    timings = [
        Timing(bundle=bundle.version, **dict(zip(("median_ms", "p90_ms", "p99_ms"), _tails(ms), strict=True)))
        for bundle, ms in zip(bundles, took, strict=True)
    ]
    found = Latency(requests=len(wanted), k=k, new=timings[0])
    if len(bundles) > 1:
        log_ratio = intervals({"ratio": np.log(took[0] / took[1])}, seed=seed)["ratio"]
        found.current = timings[1]
        found.ratio = Interval(
            value=float(np.exp(log_ratio.value)), low=float(np.exp(log_ratio.low)), high=float(np.exp(log_ratio.high))
        )
    return found


def _round(engines: Sequence[Engine], wanted: Sequence[Request]) -> np.ndarray:
    """Return [engines, requests] milliseconds; engines take turns, so that all meet the same moments of the machine."""
    took = np.zeros((len(engines), len(wanted)))
    for place, request in enumerate(wanted):
        for turn in range(len(engines)):
            number = (turn + place) % len(engines)
            began = time.perf_counter()
            engines[number].recommend([request])
            took[number, place] = (time.perf_counter() - began) * 1e3
    return took


def _tails(ms: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in np.quantile(ms, [0.5, 0.9, 0.99])]
