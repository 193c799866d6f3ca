"""Begins the slate log of a process."""

from __future__ import annotations

from pathlib import Path

from playbill.serving.http import Api
from playbill.serving.slatelog.settings import SlateLogSettings
from playbill.serving.slatelog.writer import SlateLog
from playbill.state.store import Store


def log_slates(api: Api, store: Store, home: Path | str, process: str, settings: SlateLogSettings) -> None:
    """Begin to log what answers in this process; ends with it.

    Args:
        store: that the answers are made from; notes what they read from now on.
        process: its name.
    """
    if not settings.on:
        return
    made = SlateLog(home, process, settings, api.watch.counts)
    made.start()
    store.noting, api.watch.slate_log = True, made
    api.closing.append(made.stop)
