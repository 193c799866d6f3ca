"""The record of what was published: `bundles/published.jsonl`, a line each time, which only grows."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

RECORD = "published.jsonl"


class Publication(msgspec.Struct, kw_only=True):
    """One line of `bundles/published.jsonl`, which only grows.

    Attributes:
        previous: the bundle that was current before, None for the first.
        forced: why it went out past the gate; empty when it passed.
        trial: what a trial beside the bundle in use came to, in words; empty where there was none.
    """

    at: str
    bundle: str
    previous: str | None
    gate_passed: bool
    forced: str = ""
    trial: str = ""


def remember(bundles: Path, line: Publication) -> None:
    """Add a line to the record of what was published."""
    # one write of one line in append mode: two publishers cannot mix theirs
    descriptor = os.open(bundles / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, msgspec.json.encode(line) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
