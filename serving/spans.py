"""OpenTelemetry traces: a span for each request, its stages below it, sent as OTLP over HTTP. Imported when configured.

Stages are timed, not traced: they follow each other and the last one ends with the answer, so where each began is known
from what they took. What is made of that happens in a thread, beyond the answer.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from playbill.engine.budget import SHARES
from playbill.errors import ConfigError
from playbill.serving.figures.counts import Counts
from playbill.serving.seen import Seen

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ConfigError(f"traces: {error.name} is not installed; pip install 'playbill[traces]'") from None

log = logging.getLogger("playbill.spans")

_WAITING = 2_000
_ORDER = ("decode", "engine", "record", "log", "encode")  # of a slate; stages of other routes are the only ones


class Spans:
    """Sends the spans of one process."""

    def __init__(self, url: str, share: float, process: str, counts: Counts) -> None:
        """Begin.

        Args:
            url: where a collector takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
            share: of requests that are traced, where whoever asks does not say so in `traceparent`.
            counts: told of requests whose spans were dropped.
        """
        self._counts = counts
        resource = Resource.create({"service.name": "playbill", "service.instance.id": process})
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("playbill.serving")
        self._parents = TraceContextTextMapPropagator()
        self._waiting: queue.Queue[Seen | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="playbill-spans", daemon=True)
        self._thread.start()

    def request(self, seen: Seen) -> None:
        """Take in a request; where too many wait, it is dropped and counted."""
        try:
            self._waiting.put_nowait(seen)
        except queue.Full:
            self._counts.count("spans_dropped")

    def close(self) -> None:
        """Send what there is."""
        self._waiting.put(None)
        self._thread.join(5)
        self._provider.shutdown()

    def _run(self) -> None:
        while (seen := self._waiting.get()) is not None:
            try:
                self._send(seen)
            except Exception as error:
                log.error("a request could not be traced: %s", error)
                self._counts.count("spans_dropped")

    def _send(self, seen: Seen) -> None:
        parent = self._parents.extract({"traceparent": seen.traceparent}) if seen.traceparent else None
        waited_ns = _ns(seen.times_ms.get("wait", 0.0))
        ended = seen.began_ns + _ns(seen.times_ms["total"])
        began = seen.began_ns - waited_ns
        name = f"{seen.method} {seen.route}"
        root = self._tracer.start_span(name, parent, SpanKind.SERVER, _attributes(seen), start_time=began)
        if root.is_recording():
            within = trace.set_span_in_context(root)
            if waited_ns:
                self._stage("wait", within, began, seen.began_ns)
            for name, start, end in _placed(seen.times_ms, ended):
                span = self._stage(name, within, start, end)
                if name == "engine":
                    inner = trace.set_span_in_context(span)
                    for step, low, high in _in_engine(seen.times_ms, start):
                        self._stage(step, inner, low, high)
            if seen.status >= 500:
                root.set_status(Status(StatusCode.ERROR, seen.cause))
        root.end(ended)

    def _stage(self, name: str, within: Any, start: int, end: int) -> Any:
        span = self._tracer.start_span(name, within, start_time=start)
        span.end(end)
        return span


def _placed(times_ms: Mapping[str, float], ended: int) -> Iterator[tuple[str, int, int]]:
    """Yield the stages of a request with their start and end, nanoseconds; the last ends with it."""
    there = [name for name in times_ms if name not in SHARES and name not in ("total", "wait")]
    there.sort(key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    start = ended - sum(_ns(times_ms[name]) for name in there)
    for name in there:
        end = start + _ns(times_ms[name])
        yield name, start, end
        start = end


def _in_engine(times_ms: Mapping[str, float], start: int) -> Iterator[tuple[str, int, int]]:
    for step in SHARES:
        if step in times_ms:
            end = start + _ns(times_ms[step])
            yield step, start, end
            start = end


def _attributes(seen: Seen) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.method": seen.method,
        "http.route": seen.route,
        "http.response.status_code": seen.status,
        "playbill.request_id": seen.request_id,
    }
    if seen.cause:
        found["error.type"] = seen.cause
    if seen.rung:
        found |= {
            "playbill.bundle": seen.bundle,
            "playbill.surface": seen.surface,
            "playbill.rung": seen.rung,
            "playbill.state_version": seen.state_version,
        }
    if seen.late:
        found["playbill.late"] = seen.late
    return found


def _ns(ms: float) -> int:
    return round(ms * 1e6)
