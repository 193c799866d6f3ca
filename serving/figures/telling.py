"""Tells Prometheus how a server does: each of its processes writes what it counted, and one of them answers for all.

Whoever finds the port free takes it, and when that process ends, the next one does. So it needs nobody in front, no
request ever waits behind a scrape, and Prometheus finds a server's figures in one place on each machine.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from playbill.errors import PlaybillError, trace
from playbill.serving.figures import snapshots
from playbill.serving.figures.names import FIGURES, Figure, Kind, exported
from playbill.serving.figures.snapshots import FOLDER, Sum
from playbill.serving.figures.standing import Standing
from playbill.serving.http import Api
from playbill.serving.processes import began_at
from playbill.state.store import Store

log = logging.getLogger("playbill.figures")

EVERY_S = 1.0


def tell(api: Api, store: Store, host: str, port: int) -> Telling:
    """Begin to tell of what answers in this process; ends with it.

    Args:
        host, port: where Prometheus asks; the same for all processes of a server on one machine.
    """
    telling = Telling(Standing(api, api.watch, store), _folder(port), host, port)
    telling.start()
    api.closing.append(telling.stop)
    return telling


class Told(Collector):
    """The sum of the snapshots in a folder, as Prometheus has it; read anew at each scrape."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        total = snapshots.add_up(snapshots.read(self._folder))
        for figure in FIGURES.values():
            yield _family(figure, total)

    def describe(self) -> list[Metric]:
        return []


class Telling:
    """Writes a process' snapshot every second, and answers scrapes for all processes where it has the port."""

    def __init__(self, standing: Standing, folder: Path, host: str, port: int) -> None:
        """Make one that does nothing until `start`.

        Args:
            standing: of this process.
            folder: of the snapshots of all processes of the server on this machine.
            host, port: where Prometheus asks.
        """
        self._standing, self._folder, self._address = standing, folder, (host, port)
        self._began = began_at(os.getpid())
        self._server: WSGIServer | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playbill-figures", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write a last time, and give the port to another process."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _run(self) -> None:
        failed = False
        while True:
            last = self._stopped.is_set()
            try:
                snapshots.write(self._folder, self._standing.snapshot(os.getpid(), self._began))
                failed = False
            except Exception as error:  # figures are missed, answers are not
                if not failed:
                    log.error("figures could not be written\n%s", trace(error))
                failed = True
            if last:
                return
            if self._server is None:
                self._answer()
            self._stopped.wait(EVERY_S)

    def _answer(self) -> None:
        registry = CollectorRegistry()
        registry.register(Told(self._folder))
        host, port = self._address
        try:
            self._server, _ = start_http_server(port, host, registry)
        except OSError:  # another process of this server answers; `playbill serve` looks at who else might
            return


def _folder(port: int) -> Path:
    """Return the folder of this server's snapshots, which is nobody else's."""
    given = os.environ.get(FOLDER)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"playbill-figures-{os.getuid()}-{port}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PlaybillError(f"{folder} belongs to another user; remove it, or name another folder in {FOLDER}")
    return folder


def _family(figure: Figure, total: Sum) -> Metric:
    name, labels = exported(figure), list(figure.labels)
    if figure.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, figure.about, labels=labels)
        for (of, values), found in total.histograms.items():
            if of == figure.name:
                below, buckets = 0, []
                for bound, count in zip((*map(str, figure.bounds), "+Inf"), found.counts, strict=True):
                    below += count
                    buckets.append((bound, float(below)))
                histogram.add_metric(list(values), buckets, found.total)
        return histogram
    counter = figure.kind is Kind.COUNTER
    family = CounterMetricFamily if counter else GaugeMetricFamily
    there = family(name.removesuffix("_total"), figure.about, labels=labels)
    values_of = total.counters if counter else total.gauges
    if counter and not labels:  # what never happened is 0, not unknown
        values_of = {(figure.name, ()): 0.0, **values_of}
    for (of, values), value in values_of.items():
        if of == figure.name:
            there.add_metric(list(values), value)
    return there
