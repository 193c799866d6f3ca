"""`playbill load`: sends requests to a running server at given rates, or looks for the highest that it can take."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from playbill.ask import address, post
from playbill.errors import ConfigError, PlaybillError
from playbill.release.record import machine
from playbill.serving.loading import report
from playbill.serving.loading.histogram import Histogram
from playbill.serving.loading.requests import Crowd, api_key
from playbill.serving.loading.search import find_rate
from playbill.serving.loading.settings import LoadSettings, parse_target
from playbill.serving.loading.step import Step, measure

console = Console(stderr=True, highlight=False, soft_wrap=True)


def run(settings: LoadSettings) -> report.Report:
    """Measure, print and write; see `LoadSettings`.

    Raises:
        PlaybillError: nobody answers, or the first request is refused: says why. Where the server went away later, what
            was measured is written first.
        TableError: there is nobody to ask for.
    """
    url = settings.url or address(Path(settings.home))
    started = datetime.now(UTC)
    where, host = _resolve(url)
    crowd = Crowd(settings, host)
    first, _ = post(url, "/v1/recommend", crowd.body({"user_id": crowd.people[0]}), settings.timeout_s, api_key())
    made = report.Report(
        at=started.isoformat(timespec="seconds"), url=url, bundle=str(first.get("bundle", "?")),
        people=len(crowd.people), settings=settings, machine=machine(), steps=[],
    )  # fmt: skip
    histograms: dict[str, Histogram] = {}
    with _progress() as progress:

        def one(rate: float) -> Step:
            bar = progress.add_task(f"{rate:.4g} a second")

            def advance(done: int, whole: int) -> None:
                progress.update(bar, completed=done, total=whole, refresh=True)

            step, counted = measure(settings, where, crowd, rate, len(made.steps), advance)
            progress.remove_task(bar)
            made.steps.append(step)
            for name, histogram in counted.items():
                histograms[f"{rate:.6g}" + ("" if name == "slates" else f"-{name}")] = histogram
            return step

        target = parse_target(settings.find)
        if target is not None:
            made.found = find_rate(one, settings.rates[0], *target, settings.precision)
        else:
            for rate in settings.rates:
                if not one(rate).answered:
                    break
    folder = Path(settings.home) / "load" / (settings.name or f"{started:%Y%m%d-%H%M%S}")
    report.show(Console(highlight=False), made)
    report.write(folder, made, histograms)
    console.print(f"[bold]{folder}[/]: report.json, latency.png and *.hgrm")
    if not made.steps[-1].answered:
        raise PlaybillError(f"the server went away: nobody answered at {made.steps[-1].rate:g} requests a second")
    return made


def _resolve(url: str) -> tuple[tuple[str, int], str]:
    """Return the IP address and port of a server, and what a `host` header says of it.

    Raises:
        ConfigError: no such form.
        PlaybillError: no such name.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise ConfigError(f"url: {error} in {url!r}") from error
    if not host or parts.path.strip("/") or parts.query:
        raise ConfigError(f"url: expected http://host[:port] and nothing behind it, got {url!r}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PlaybillError(f"nobody is called {host}: {error}") from error
    # the first that can be reached: `localhost` may be ::1, where nobody listens
    for *_, candidate in found:
        where = str(candidate[0]), int(candidate[1])
        try:
            socket.create_connection(where, 2.0).close()
        except OSError:
            continue
        return where, parts.netloc.rpartition("@")[2]
    raise PlaybillError(f"nobody answers at {url}; start a server with `playbill serve`")


def _progress() -> Progress:
    # drawn when it is told to, about once a second: a thread that draws would take time from what is measured
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not sys.stderr.isatty())
