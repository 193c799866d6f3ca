"""Begins all by which a process is seen from outside: the slate log, figures, structured logs, traces."""

from __future__ import annotations

from pathlib import Path

from playbill.serving.figures.telling import tell
from playbill.serving.http import Api
from playbill.serving.journal import Journal
from playbill.serving.slatelog.start import log_slates
from playbill.serving.watch_settings import LogForm, WatchSettings
from playbill.state.store import Store


def begin_watching(
    api: Api,
    store: Store,
    home: Path | str,
    process: str,
    settings: WatchSettings,
    figures: tuple[str, int] | None,
) -> None:
    """Begin what the settings ask for; all of it ends with the interface.

    Args:
        process: name of this process among those of the server.
        figures: where Prometheus asks; None: nowhere.
    Raises:
        ConfigError: traces are asked for, and what sends them is not installed.
    """
    log_slates(api, store, home, process, settings.slates)
    if settings.log is LogForm.json:
        journal = Journal(process, api.watch.counts)
        api.watch.tellers.append(journal.request)
        api.closing.append(journal.end)
    if settings.traces:
        from playbill.serving.spans import Spans  # and with it OpenTelemetry

        spans = Spans(settings.traces, settings.traces_share, process, api.watch.counts)
        api.watch.tellers.append(spans.request)
        api.closing.append(spans.close)
    if figures is not None:
        tell(api, store, *figures)
