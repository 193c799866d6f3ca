"""Every figure that a server exports: its name, what it means, its labels, and how processes add up to a server.

`playbill_` stands before each name; counters end in `_total`. FIGURES.md says the same in a table, which is tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LATENCY_S = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
)  # fmt: skip
LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 60.0, 3600.0, 86_400.0)


class Kind(Enum):
    """What Prometheus takes a figure for."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Together(Enum):
    """How the values of several processes become one. Counters and histograms are sums."""

    SUM = "sum"
    MOST = "most"
    LEAST = "least"
    MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        bounds: of a histogram's buckets, the last one, which takes the rest, left out.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    together: Together = Together.SUM
    bounds: tuple[float, ...] = ()


def _counter(name: str, about: str, *labels: str) -> Figure:
    return Figure(name, Kind.COUNTER, about, labels)


def _gauge(name: str, about: str, *labels: str, together: Together = Together.SUM) -> Figure:
    return Figure(name, Kind.GAUGE, about, labels, together)


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            "latency_seconds",
            Kind.HISTOGRAM,
            "Time of a request by stage; `total` is all of it in the replica, `rung` is empty where there is none.",
            ("route", "stage", "rung"),
            bounds=LATENCY_S,
        ),
        _counter("requests", "Requests by what was answered.", "route", "status"),
        _counter("refusals", "Requests refused or failed, by cause: the `error` of the answer.", "route", "cause"),
        _counter("answers", "Slates and pages by the rung that they stand on.", "surface", "rung"),
        _counter(
            "deadline_misses",
            "Answers that had no time for a stage, by stage; `queue`: refused because they waited too long; `answer`: "
            "ready later than their deadline, the wait in HAProxy counted; what an answer takes on its way back is not "
            "seen here.",
            "stage",
        ),
        _counter("faults", "Answers for which a part failed and a lower rung answered.", "part"),
        _counter("events", "Events taken in: `new`, or `known` by their id already.", "kind"),
        Figure(
            "event_lag_seconds",
            Kind.HISTOGRAM,
            "From the moment that an event gives, or of its arrival, until requests can see it.",
            bounds=LAG_S,
        ),
        _counter("swaps", "Changes of bundle, one a process: `taken` or `failed`.", "outcome"),
        _counter("trials", "Trials that ended, one a process: `taken_on` or `sent_back`.", "verdict"),
        _gauge("trial_answers", "Answers of the trial that runs, by bundle: `new` or `used`.", "bundle", "side"),
        _gauge("trial_failures", "Answers that the bundle on trial could not give.", "bundle"),
        _gauge("processes", "Processes that answer."),
        _gauge("requests_in_progress", "Requests that are being answered."),
        _gauge("writes_waiting", "Deliveries and choices that wait for a thread that writes them into the store."),
        _gauge("bundle", "Processes that answer from a bundle.", "version"),
        _gauge(
            "bundle_made_timestamp_seconds", "When the bundle that answers was exported.", "version",
            together=Together.LEAST,
        ),
        _gauge(
            "bundle_learned_until_timestamp_seconds", "Until when the bundle that answers learned from events.",
            "version", together=Together.LEAST,
        ),
        _gauge("rung_reachable", "1 where every process can reach the rung.", "rung", together=Together.LEAST),
        _gauge("model_device", "Processes in which a provider runs a model.", "model", "provider", "device"),
        _gauge("state_reachable", "1 while every process can read the store.", together=Together.LEAST),
        _gauge("state_version", "Sequence of the store's last event or change.", together=Together.MOST),
        _gauge(
            "state_changed_timestamp_seconds", "When the store was last seen to have changed.", together=Together.MOST
        ),
        _gauge("catalogue_version", "State version that the catalogue which answers is of.", together=Together.LEAST),
        _gauge(
            "catalogue_current_timestamp_seconds",
            "When the catalogue that answers was last known to be the store's newest.",
            together=Together.LEAST,
        ),
        _gauge("fresh_items", "Items that came after the bundle and can be shown.", together=Together.LEAST),
        _gauge(
            "shared_lists", "Share of their first ten places that two people have in common, on average.", "surface",
            together=Together.MEAN,
        ),
        _gauge(
            "score_drift", "Population stability index of shown scores against the bundle's evaluation.", "rung"
        ),
        _counter("slate_log_slates", "Answers, `written` into the slate log or `dropped`.", "outcome"),
        _counter("log_lines_dropped", "Lines of the structured log that nobody read fast enough."),
        _counter("spans_dropped", "Requests whose spans were dropped because too many waited."),
        _counter("narrator_calls", "Questions to the narrator: `answered` or `failed`.", "outcome"),
        _counter(
            "narrator_sentences", "Sentences that the narrator gave: `kept`, or why they were dropped.", "outcome"
        ),
        _counter(
            "narrated_reasons", "Reasons that went out where there is a narrator: in a `sentence`, or the `template`.",
            "text",
        ),
        _gauge("slate_log_waiting", "Answers that are still to be written into the slate log."),
        _gauge("slate_log_bytes", "Files of the slate log in this home.", together=Together.MOST),
        _gauge("score_drift_scores", "Shown scores that the index stands on.", "rung"),
    )
}  # fmt: skip


def exported(figure: Figure) -> str:
    """Return the name of a figure as Prometheus has it."""
    return f"playbill_{figure.name}{'_total' if figure.kind is Kind.COUNTER else ''}"
