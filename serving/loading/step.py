"""One rate: its requests, sent, and the figures of what came back."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from playbill.serving.loading.connection import TIMEOUT, WITHOUT_STATUS
from playbill.serving.loading.histogram import Histogram
from playbill.serving.loading.open_loop import Sent, send_all
from playbill.serving.loading.requests import Crowd
from playbill.serving.loading.settings import LoadSettings

_LATE_MS, _LATE_SHARE = 1.0, 0.1


class Step(msgspec.Struct, kw_only=True):
    """What was measured at one rate. Latencies are milliseconds from the moment at which a request was due.

    Attributes:
        rate: requests a second that were asked for.
        sent_per_s: that came due in the time that counts; a Poisson process does not keep to its mean.
        answered_per_s: answers with 200 that came in that time.
        warmup: requests that came due before.
        requests: that came due in that time; all that follows is about them.
        statuses: how they ended: by status, or timeout, closed, refused, malformed.
        rungs: slates by rung.
        late: slates for which the server passed over a step, by the steps: it had no time for them, and answered with
            something less.
        latency: of slates, answers with 200 and what was given up after `timeout_s`: percentiles, mean, and the
            buckets of `Histogram.sparse`.
        whole: as the buckets of `latency`, of slates for which no step was passed over.
        service: the same from the moment at which a request was written to a connection. With one connection that is
            what a closed loop counts: whoever waits for its answer does not ask in a stall.
        events: as `latency`, of events; None where none were sent.
        stages: by stage of the server, the percentiles of its time.
        waited: requests for which no connection was free.
        most_open: connections that were open at once.
        lag: how late the generator turned to requests, percentiles.
        cpu_us: processor time of the generator a request, in microseconds.
        cpu_share: of one core that the generator used.
        behind: the generator could not keep up: its own lateness is a good part of the latencies.
    """

    rate: float
    sent_per_s: float
    answered_per_s: float
    warmup: int
    requests: int
    statuses: dict[str, int]
    rungs: dict[str, int]
    late: dict[str, int]
    whole: dict[str, list[int]]
    latency: dict[str, Any]
    service: dict[str, Any]
    events: dict[str, Any] | None
    stages: dict[str, dict[str, float | None]]
    waited: int
    most_open: int
    lag: dict[str, float | None]
    cpu_us: float
    cpu_share: float
    behind: bool

    @property
    def answered(self) -> bool:
        """Whether there was a server at all."""
        return any(name not in WITHOUT_STATUS.values() for name in self.statuses)

    def share_within(self, limit_ms: float) -> float:
        """Return the share of slates that were there within so many milliseconds; what failed was not, nor what was
        answered in time with something less because time was short."""
        buckets = zip(self.whole["up_to_us"], self.whole["count"], strict=True)
        good = sum(count for us, count in buckets if us <= limit_ms * 1e3)
        return good / max(self.latency["asked"], 1)


def measure(
    settings: LoadSettings,
    address: tuple[str, int],
    crowd: Crowd,
    rate: float,
    number: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Step, dict[str, Histogram]]:
    """Send one step's requests and return its figures, with the histograms of slates and, where sent, of events.

    Args:
        number: of the step, from 0; with the seed it decides what is sent and when.
        progress: called now and then with how many requests are done, and how many there are.
    """
    draws = np.random.default_rng([settings.seed, number])
    whole = settings.warmup_s + settings.duration_s
    count = max(int(draws.poisson(rate * whole)), 1)
    # given their number, the moments of a Poisson process are so many even draws
    offsets = np.sort(draws.uniform(0, whole, count))
    payloads, is_event = crowd.draw(count, draws)
    sent = send_all(
        address,
        payloads,
        array("d", offsets.tolist()),
        connections=settings.connections,
        timeout_s=settings.timeout_s,
        progress=None if progress is None else lambda done: progress(done, count),
    )
    return figures(sent, rate, offsets >= settings.warmup_s, is_event, settings.duration_s)


def figures(
    sent: Sent, rate: float, counts: np.ndarray, is_event: np.ndarray, duration_s: float
) -> tuple[Step, dict[str, Histogram]]:
    """Return the figures of what was sent.

    Args:
        counts: [N] bool, which requests lie in the time that counts.
        is_event: [N] bool.
        duration_s: length of that time; it ends with the step.
    """
    due, taken, written, done = (np.asarray(a) for a in (sent.due, sent.taken, sent.written, sent.done))
    status = np.asarray(sent.status)
    ok = status == 200
    lasted = ok | (status == TIMEOUT)
    start = due[0] if not counts.any() else due[counts][0]
    in_time = ok & (done >= start) & (done < start + duration_s)
    slates, events = counts & ~is_event, counts & is_event
    latency, whole, service = Histogram(), Histogram(), Histogram()
    latency.record((done - due)[slates & lasted])
    whole.record((done - due)[slates & ok & np.asarray([not late for late in sent.late])])
    service.record((done - written)[slates & lasted & ~np.isnan(written)])
    found = {"slates": latency}
    if events.any():
        found["events"] = Histogram()
        found["events"].record((done - due)[events & lasted])
    lag = Histogram()
    lag.record((taken - due)[counts])
    late_ms = lag.percentile_ms(99.0) or 0.0
    step = Step(
        rate=rate,
        sent_per_s=round(float(counts.sum()) / duration_s, 2),
        answered_per_s=round(float(in_time.sum()) / duration_s, 2),
        warmup=int((~counts).sum()),
        requests=int(counts.sum()),
        statuses=_named(status[counts]),
        rungs=dict(Counter(sent.rung[i].decode("latin-1") for i in np.flatnonzero(slates & ok))),
        late=dict(Counter(sent.late[i].decode("latin-1") for i in np.flatnonzero(slates & ok) if sent.late[i])),
        whole=whole.sparse(),
        latency={**latency.summary(), "asked": int(slates.sum()), "buckets": latency.sparse()},
        service=service.summary(),
        events=found["events"].summary() if "events" in found else None,
        stages=_stages([sent.timing[i] for i in np.flatnonzero(slates & ok)]),
        waited=int((np.isnan(written) | (written - taken > 1e-3))[counts].sum()),
        most_open=sent.most_open,
        lag=lag.summary(),
        cpu_us=round(sent.cpu_s / len(due) * 1e6, 1),
        cpu_share=round(sent.cpu_s / sent.wall_s, 4),
        behind=late_ms > max(_LATE_MS, _LATE_SHARE * (latency.percentile_ms(99.0) or 0.0)),
    )
    return step, found


def _named(status: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(status, return_counts=True)
    return {WITHOUT_STATUS.get(int(v), str(v)): int(c) for v, c in zip(values, counts, strict=True)}


def _stages(timings: Sequence[bytes]) -> dict[str, dict[str, float | None]]:
    """Return the percentiles of each stage, in the order in which the server names them."""
    found: dict[bytes, list[float]] = {}
    for timing in timings:
        for entry in timing.split(b","):
            name, _, rest = entry.strip().partition(b";dur=")
            if rest:
                try:
                    found.setdefault(name, []).append(float(rest.partition(b";")[0]))
                except ValueError:  # of a proxy that says it in another way
                    continue
    stages = {}
    for name, took in found.items():
        stage = Histogram()
        stage.record(np.array(took) / 1e3)
        stages[name.decode("latin-1")] = stage.summary()
    return stages
